"""Recording in the state norms, skipped steps and clipped steps of a whole optimizer."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx import tree
from gradtx._roles import Inner, Reading, Role, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    PyTree,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import safe_increment
from gradtx.engine.pipeline import wrapped


@declared
class WatchState(NamedTuple):
    """The state of `watch`; `gradtx.metrics` returns its readings.

    Attributes:
      gradient_norm: the norm of the last gradients, before the optimizer.
      update_norm: the norm of the last updates.
      update_ratio: `update_norm` over the norm of the parameters before the step; 0 if these were
        zero, or not given.
      skipped: the number of steps with a zero update for a nonzero gradient, or with a
        `gradient_norm` that was not finite. If a state inside has its own count of this name, as
        that of `skip_outliers`, `metrics` returns that one.
      inner_state: the state of the optimizer.
    """

    gradient_norm: Reading
    update_norm: Reading
    update_ratio: Reading
    skipped: Annotated[Array, Role("reading", told="", repeats=True)]
    inner_state: Inner


@declared
class CountedState(NamedTuple):
    """The state of `counted`; `gradtx.metrics` returns its count.

    Attributes:
      counts: a dict from the given name to the number of steps that changed the updates.
      inner_state: the state of the transformation.
    """

    counts: Annotated[dict[str, Array], Role("reading", told="*")]
    inner_state: Inner


@piece
def watch(inner: TransformationLike) -> GradientTransformation:
    """Records in the state the norms of the gradients and the updates of an optimizer.

    With the gradients `g`, the updates `u` and the parameters `p`, it records `norm(g)`, `norm(u)`,
    `norm(u) / norm(p)` and the number of skipped steps; see `WatchState`. Norms are Euclidean, over
    all leaves, in float32. The updates are exactly those of the optimizer. Wrap the whole optimizer
    in it, with clipping and guards inside. Around `MultiSteps`, micro-steps without an update count
    as skipped.

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
        # Without the barrier, XLA shares squares of gradients with the optimizer's computation, and
        # stores and rounds them, which changes the optimizer's results.
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

    return wrapped(init, update, inner, name="watch", state=WatchState)


@piece
def counted(inner: TransformationLike, name: str = "acted") -> GradientTransformation:
    """Counts the steps at which a transformation changes the updates, such as clipped steps.

    Args:
      inner: the transformation, such as `clip_by_global_norm(1.0)`.
      name: the name of the count in `gradtx.metrics`. Default: `"acted"`.

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

    return wrapped(init, update, inner, name="counted", state=CountedState)


def _norm(x: PyTree) -> Array:
    """Returns the norm of the floating leaves; masked leaves may have any dtype."""
    leaves = [leaf for leaf in jax.tree.leaves(x) if jnp.issubdtype(_dtype(leaf), jnp.inexact)]
    return jnp.asarray(tree.norm(leaves), jnp.float32)


def _dtype(leaf: Any) -> DTypeLike:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def _differs(old: ArrayLike, new: ArrayLike) -> Array:
    old = jnp.asarray(old, jnp.result_type(new))
    return (old != new) & ~((old != old) & (new != new))  # NaN that stays NaN is no change
