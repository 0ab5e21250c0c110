"""Momentum that is reset from time to time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._roles import Count, Inner, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import default_float
from gradtx.engine.scalars import finished
from gradtx.transforms.guards import begun_again
from gradtx.tree.moments import next_count
from gradtx.tree.norms import rescale


@declared
class MomentumResetState(NamedTuple):
    """The state of `momentum_reset`.

    Attributes:
      count: the number of steps taken; before int32 overflows, a multiple of `every` is
        subtracted.
      inner_state: the state of the transformation.
    """

    count: Count
    inner_state: Inner


@piece
def momentum_reset(
    inner: TransformationLike, every: int = 500, warmup: int = 150
) -> GradientTransformation:
    """Resets the state of a transformation periodically, and warms up its updates after that.

    After every `every` steps, the state of `inner` becomes that of `inner.init(params)`: moments
    are zero, and their counts, with which the bias is corrected, start at 0 again. The updates of
    the next steps, `i = 1, 2, ...`, are multiplied by `(1 - cos(pi * min(i / warmup, 1))) / 2`.

    It is for moments, which a spike of the gradients spoils for many steps: wrap
    `scale_by_adam()`, and leave learning rates outside, whose schedules would start again.

    Args:
      inner: the transformation.
      every: the number of steps between resets. Default: 500.
      warmup: the number of steps after a reset until updates have their full size; 0 for none.
        Default: 150.

    Raises:
      ValueError: `update` was called without params.

    Source: Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training",
    arXiv:2501.06842.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.momentum_reset(gradtx.trace(1.0), every=2, warmup=2)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for _ in range(4):
      ...     updates, state = tx.update(jnp.ones(1), state, params)
      ...     print(updates)  # sums 1, 2, 1, 2; the last two times 1/2 and 1
      [1.]
      [2.]
      [0.5]
      [2.]
    """
    inner = with_extra_args_support(inner)

    def init(params: Params) -> MomentumResetState:
        return MomentumResetState(jnp.zeros((), jnp.int32), inner.init(params))

    @compiled_when_concrete
    def scaled(updates: Updates, count: Array) -> Updates:
        done = jnp.minimum((count % every + 1).astype(default_float()) / warmup, 1)
        factor = finished(jnp.where(count < every, 1, (1 - jnp.cos(jnp.pi * done)) / 2))
        return jax.tree.map(lambda u: rescale(u, factor), updates)

    def update(
        updates: Updates, state: MomentumResetState, params: Params, **extra: Any
    ) -> tuple[Updates, MomentumResetState]:
        updates, new = inner.update(updates, state.inner_state, params, **extra)
        due = state.count % every == every - 1
        new = branch(due, lambda: begun_again(inner, params, new), lambda: new)
        updates = scaled(updates, state.count) if warmup else updates
        return updates, MomentumResetState(next_count(state.count, every), new)

    return coupled(
        MomentumResetState,
        init,
        update,
        name="momentum_reset",
        params=True,
        traits={"passes_to": (inner,), "inner": (inner,)},
    )
