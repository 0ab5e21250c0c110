"""Sharpness-aware minimization (SAM)."""

from collections.abc import Callable, Hashable
from numbers import Integral
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx._apply import apply_updates
from gradtx._roles import Count, Inner, Slot, Told, declared
from gradtx.engine.base import (
    Array,
    ExtraArgs,
    GradientTransformation,
    Params,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import widen
from gradtx.transforms.guards import begun_again, cast_like
from gradtx.tree.present import present, replaced


@declared
class SAMState(NamedTuple):
    """The state of `sam`.

    Attributes:
      steps_since_sync: the number of ascent steps since the last descent.
      opt_state: the state of the optimizer that descends.
      adv_state: the state of the optimizer that ascends.
      cache: the parameters before the ascent; `None` in opaque mode.
    """

    steps_since_sync: Annotated[Count, Told()]
    opt_state: Inner
    adv_state: Annotated[Inner, Told()]
    cache: Slot


@piece
def sam(
    optimizer: TransformationLike,
    adv_optimizer: TransformationLike,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: Hashable | None = None,
) -> GradientTransformation:
    """SAM: descends along the gradient at the worst point nearby, which leads to flat minima.

    From `q = p`, `adv_optimizer` takes `sync_period - 1` steps uphill, `q = q - v(grad(q))`, where
    `v` are its updates, which lead downhill. Then `optimizer` takes a step `u` from `p`, with the
    gradient at `q`. The method of the paper,

        q = p + rho * g / norm(g)
        p + u(grad(q))

    has one step of `adv_optimizer = chain(normalize(), sgd(rho))`.

    In transparent mode, each call of `update` is one of these steps. Between two descents the
    parameters are `q`, and gradients are taken there, so that a training loop needs no change. In
    opaque mode, one call takes all steps, and the parameters of the loop are always `p`. The
    gradients come from a function, `update(..., grad_fn=f)`: `f(q, i)` is the gradient after the
    ascent step `i`, which is 0 for the first.

    Both optimizers get the extra arguments, except for `learning_rate`, which is only passed to
    `optimizer`.

    Args:
      optimizer: the optimizer that descends. It gets the parameters `p`.
      adv_optimizer: the optimizer that ascends: the negatives of its updates are applied. It should
        have no momentum, or be reset.
      sync_period: the number of gradients for one descent, at least 1; with 1 there is no ascent.
        Default: 2, as in the paper.
      reset_state: whether the state of `adv_optimizer` is reset after each descent. Default: True.
      opaque_mode: whether one call takes all steps. Default: False, each call takes one.
      batch_axis_name: the name of an axis of `jax.vmap` or `jax.shard_map`. Each member of the axis
        ascends along the gradient of its own part of the batch, and all descend along the mean of
        their gradients. Default: `None`, no mean is taken.

    Raises:
      ValueError: `sync_period` is less than 1, or not an integer in opaque mode, or `update` was
        called without params.
      TypeError: `update` was called without `grad_fn` in opaque mode.

    Source: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization",
    arXiv:2010.01412, Algorithm 1; with a `batch_axis_name` their m-sharpness.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> ascent = gradtx.sgd(0.5)
      >>> tx, p = gradtx.sam(gradtx.sgd(0.1), ascent), jnp.array([1.0])
      >>> state = tx.init(p)
      >>> for _ in range(2):  # the gradient of p^2 / 2 is p
      ...     updates, state = tx.update(p, state, p)
      ...     p = p + updates
      ...     print(p)
      [1.5]
      [0.85]
      >>> opaque, p = gradtx.sam(gradtx.sgd(0.1), ascent, opaque_mode=True), jnp.array([1.0])
      >>> print(p + opaque.update(p, opaque.init(p), p, grad_fn=lambda q, i: q)[0])
      [0.85]
    """
    if opaque_mode and not isinstance(sync_period, Integral):
        raise ValueError(f"sam: sync_period must be an integer in opaque mode, got {sync_period!r}")
    optimizer = with_extra_args_support(optimizer)
    adv_optimizer = with_extra_args_support(adv_optimizer)

    def init(params: Params) -> SAMState:
        return SAMState(
            steps_since_sync=jnp.zeros((), jnp.int32),
            opt_state=optimizer.init(params),
            adv_state=adv_optimizer.init(params),
            cache=None if opaque_mode else _copied(params),
        )

    def ascend(
        g: Updates, state: SAMState, q: Params, extra: ExtraArgs
    ) -> tuple[Updates, SAMState]:
        extra = {n: x for n, x in extra.items() if n != "learning_rate"}
        downhill, adv_state = adv_optimizer.update(g, state.adv_state, q, **extra)
        uphill = cast_like(jax.tree.map(jnp.negative, downhill), g)
        return uphill, state._replace(adv_state=cast_like(adv_state, state.adv_state))

    def descend(
        g: Updates, state: SAMState, p: Params, extra: ExtraArgs
    ) -> tuple[Updates, SAMState]:
        if batch_axis_name is not None:
            g = lax.pmean(g, batch_axis_name)
        moves, opt_state = optimizer.update(g, state.opt_state, p, **extra)
        state = state._replace(opt_state=cast_like(opt_state, state.opt_state))
        if reset_state:
            adv_state = begun_again(adv_optimizer, apply_updates(p, moves), state.adv_state)
            state = state._replace(adv_state=adv_state)
        return cast_like(moves, g), state

    def transparent_update(
        updates: Updates, state: SAMState, q: Params, **extra: Any
    ) -> tuple[Updates, SAMState]:
        present(updates, **{"state.cache": state.cache})
        state = state._replace(cache=_start(state.steps_since_sync, q, state.cache))
        steps = state.steps_since_sync + 1

        def up() -> tuple[Updates, SAMState]:
            moves, new = ascend(updates, state, q, extra)
            return moves, new._replace(steps_since_sync=steps)

        def down() -> tuple[Updates, SAMState]:
            moves, new = descend(updates, state, state.cache, extra)
            new = new._replace(steps_since_sync=jnp.zeros_like(steps))
            return _back_and(moves, q, state.cache), new

        return branch(steps >= sync_period, down, up)

    def opaque_update(
        updates: Updates,
        state: SAMState,
        p: Params,
        *,
        grad_fn: Callable[[Params, int], Updates],
        **extra: Any,
    ) -> tuple[Updates, SAMState]:
        g, q = updates, p
        for i in range(int(sync_period) - 1):
            moves, state = ascend(g, state, q, extra)
            q = apply_updates(q, moves)
            (found,) = present(updates, **{f"grad_fn(params, {i})": grad_fn(q, i)})
            g = cast_like(replaced(updates, updates, found), updates)
        return descend(g, state, p, extra)

    return coupled(
        SAMState,
        init,
        opaque_update if opaque_mode else transparent_update,
        name="sam",
        needs=("grad_fn",) if opaque_mode else (),
        params=True,
        traits={"passes_to": (optimizer, adv_optimizer), "inner": (optimizer,)},
    )


@compiled_when_concrete
def _start(steps: Array, params: Params, cache: Params) -> Params:
    """Returns the parameters before the ascent; at its first step, these are the present ones."""
    return jax.tree.map(
        lambda p, old: jnp.where(steps == 0, p, old).astype(old.dtype), params, cache
    )


@compiled_when_concrete
def _back_and(moves: Updates, params: Params, start: Params) -> Updates:
    """Returns the updates from the present parameters to the result of a step from the start."""

    def one(u: ArrayLike | None, q: ArrayLike, p: Array) -> Array | None:
        if u is None:
            return None
        # The result is rounded to the precision of the parameters before the difference is taken.
        there = (widen(p) + widen(u)).astype(p.dtype)
        return (widen(there) - widen(q)).astype(jnp.result_type(u))

    return jax.tree.map(one, moves, params, start, is_leaf=lambda x: x is None)


def _copied(params: Params) -> Params:
    return jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p), copy=True), params)
