"""Keeping in the state how a whole optimizer fares: norms, and steps left out or bounded."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx import tree
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import safe_increment
from gradtx.engine.pipeline import wrapped
from gradtx.engine.roles import Inner, Reading, Role, declared


@declared
class WatchState(NamedTuple):
    """The state of `watch`; `gradtx.metrics` finds what it holds.

    Attributes:
      gradient_norm: the norm of the last gradients, as they came in.
      update_norm: the norm of the last updates.
      update_ratio: `update_norm` over the norm of the parameters before the step; 0 where those
        were zero, or not given.
      skipped: the number of steps that gave no update though there was a gradient, or whose
        `gradient_norm` was not finite.
      inner_state: the optimizer's own state.
    """

    gradient_norm: Reading
    update_norm: Reading
    update_ratio: Reading
    skipped: Reading
    inner_state: Inner


@declared
class CountedState(NamedTuple):
    """The state of `counted`; `gradtx.metrics` finds what it holds.

    Attributes:
      counts: under the name that was given, the number of steps that changed the updates.
      inner_state: the transformation's own state.
    """

    counts: Annotated[dict[str, Array], Role("reading", told="*")]
    inner_state: Inner


@piece
def watch(inner: Any) -> GradientTransformation:
    """Notes in the state how large the gradients and the steps of an optimizer are.

    With the gradients `g`, the updates `u` and the parameters `p`, it keeps `norm(g)`, `norm(u)`,
    `norm(u) / norm(p)` and a count of skipped steps; see `WatchState`. Norms are Euclidean, over
    all leaves, in float32. The updates are the optimizer's, to the last bit. Put it around all
    that makes a step, with clipping and guards inside; around `MultiSteps`, micro-steps that give
    no update count as skipped.

    Args:
      inner: the optimizer.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.watch(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)))
      >>> params = jnp.array([1.0, 0.0])
      >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
      >>> for name, value in gradtx.metrics(state).items():
      ...     print(name, value)
      gradient_norm 5.0
      update_norm 0.1
      update_ratio 0.1
      skipped 0
    """
    inner = with_extra_args_support(inner)

    def init(params: Params) -> WatchState:
        zero = jnp.zeros((), jnp.float32)
        return WatchState(zero, zero + 0, zero + 0, jnp.zeros((), jnp.int32), inner.init(params))

    @compiled_when_concrete
    def measure(
        gradients: Updates, updates: Updates, params: Params | None, skipped: Array
    ) -> tuple[Array, ...]:
        # XLA would share squares of gradients with those that the optimizer takes, and then store
        # and round them, which it otherwise does not.
        gradients, params = lax.optimization_barrier((gradients, params))
        came, went, size = map(_norm, (gradients, updates, params))
        ratio = jnp.where(size > 0, went / jnp.where(size > 0, size, 1), 0)
        skip = ((came > 0) & (went == 0)) | ~jnp.isfinite(came)
        return came, went, ratio, jnp.where(skip, safe_increment(skipped), skipped)

    def update(
        updates: Updates, state: WatchState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, WatchState]:
        new, inner_state = inner.update(updates, state.inner_state, params, **extra)
        came, went, ratio, skipped = measure(updates, new, params, state.skipped)
        return new, WatchState(came, went, ratio, skipped, inner_state)

    return wrapped(init, update, inner)


@piece
def counted(inner: Any, name: str = "acted") -> GradientTransformation:
    """Counts the steps on which a transformation changes the updates: how often a clip acts.

    Args:
      inner: the transformation, such as `clip_by_global_norm(1.0)`.
      name: what `gradtx.metrics` calls the count. Default: `"acted"`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> clip = gradtx.counted(gradtx.clip_by_global_norm(1.0), "clipped")
      >>> tx = gradtx.chain(clip, gradtx.sgd(0.1))
      >>> state = tx.init(jnp.zeros(1))
      >>> for size in (3.0, 0.5, 2.0):
      ...     updates, state = tx.update(jnp.array([size]), state)
      >>> print(gradtx.metrics(state)["clipped"])
      2
    """
    inner = with_extra_args_support(inner)

    def init(params: Params) -> CountedState:
        return CountedState({name: jnp.zeros((), jnp.int32)}, inner.init(params))

    @compiled_when_concrete
    def count(old: Updates, new: Updates, so_far: Array) -> Array:
        changes = [jnp.any(x) for x in jax.tree.leaves(jax.tree.map(_differs, old, new))]
        acted = jnp.any(jnp.asarray(changes, bool))
        return jnp.where(acted, safe_increment(so_far), so_far)

    def update(
        updates: Updates, state: CountedState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, CountedState]:
        new, inner_state = inner.update(updates, state.inner_state, params, **extra)
        return new, CountedState({name: count(updates, new, state.counts[name])}, inner_state)

    return wrapped(init, update, inner)


def _norm(x: Any) -> Array:
    """Gives the norm of the leaves that are floating: what is masked may be of any kind."""
    leaves = [leaf for leaf in jax.tree.leaves(x) if jnp.issubdtype(_dtype(leaf), jnp.inexact)]
    return jnp.asarray(tree.norm(leaves), jnp.float32)


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def _differs(old: Any, new: Any) -> Array:
    old = jnp.asarray(old, jnp.result_type(new))
    return (old != new) & ~((old != old) & (new != new))  # NaN that passes is no change
