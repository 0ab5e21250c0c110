"""Reducing the learning rate when a loss stops improving (reduce on plateau)."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._roles import Count, Hyperparameter, Shared, Told, declared_as
from gradtx.engine.base import Array, GradientTransformation, OptState, Params, Scalar, Updates
from gradtx.engine.checks import check_value
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.pipeline import wrapped
from gradtx.engine.scalars import finished
from gradtx.tree.norms import rescale


@declared_as("reduce_on_plateau")
class ReduceLROnPlateauState(NamedTuple):
    """The state of `reduce_on_plateau`.

    Attributes:
      scale: the factor by which updates are multiplied.
      best_value: the lowest averaged value so far.
      plateau_count: the number of consecutive averaged values without an improvement.
      cooldown_count: the number of averaged values still to be ignored after a reduction.
      count: the number of values in the running average.
      avg_value: the running average.
    """

    scale: Annotated[Hyperparameter, Told("plateau_scale")]
    best_value: Annotated[Shared, Told()]
    plateau_count: Annotated[Count, Told()]
    cooldown_count: Annotated[Count, Told()]
    count: Count
    avg_value: Annotated[Shared, Told()]


@piece
def reduce_on_plateau(
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: Scalar = 0.0,
) -> GradientTransformation:
    """Multiplies updates by a scale that is reduced when a measured value stops improving.

    The value is an argument of each call, `update(..., value=loss)`. After every
    `accumulation_size` calls, the mean of their values is compared with the best so far: it is an
    improvement if `mean < best - rtol*|best| - atol`. Values may be negative. After `patience`
    consecutive means without improvement, `scale = max(factor * scale, min_scale)`, and the next
    `cooldown` means are not counted. NaN is not an improvement.

    Args:
      factor: the factor of each reduction, in (0, 1). Default: 0.1.
      patience: the number of consecutive means without improvement after which the scale is
        reduced; at least 1. Default: 10.
      rtol: the relative improvement that is required. Default: 1e-4.
      atol: the absolute improvement that is required. Default: 0.
      cooldown: the number of means after a reduction that do not count for `patience`. Default: 0.
      accumulation_size: the number of calls whose values are averaged. Default: 1.
      min_scale: the smallest scale. Default: 0.

    Raises:
      ValueError: an argument is out of range, or `update` was called without `value`, or with one
        that is not a single number.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.reduce_on_plateau(factor=0.5, patience=2))
      >>> state = tx.init(jnp.zeros(1))
      >>> for loss in [1.0, 1.0, 1.0]:
      ...     updates, state = tx.update(jnp.ones(1), state, value=loss)
      >>> print(updates)
      [-0.5]
    """

    def init(params: Params) -> ReduceLROnPlateauState:
        del params
        return ReduceLROnPlateauState(
            scale=jnp.ones((), jnp.float32),
            best_value=jnp.full((), jnp.inf, jnp.float32),
            plateau_count=jnp.zeros((), jnp.int32),
            cooldown_count=jnp.zeros((), jnp.int32),
            count=jnp.zeros((), jnp.int32),
            avg_value=jnp.zeros((), jnp.float32),
        )

    def judge(s: ReduceLROnPlateauState, mean: Array) -> ReduceLROnPlateauState:
        """Compares a completed mean with the best one."""
        seen = jnp.isfinite(s.best_value)  # infinity at first, whose multiples are not finite
        margin = jnp.where(seen, rtol * jnp.abs(s.best_value), 0) + atol
        improved = mean < s.best_value - margin
        cooling = s.cooldown_count > 0
        stale = jnp.where(improved | cooling, 0, s.plateau_count + 1)
        reduce = stale >= patience
        return s._replace(
            scale=jnp.where(reduce, jnp.maximum(s.scale * factor, min_scale), s.scale),
            best_value=jnp.where(improved, mean, s.best_value),
            plateau_count=jnp.where(reduce, 0, stale),
            cooldown_count=jnp.where(reduce, cooldown, jnp.maximum(s.cooldown_count - 1, 0)),
            count=jnp.zeros_like(s.count),
            avg_value=jnp.zeros_like(s.avg_value),
        )

    @compiled_when_concrete
    def step(updates: Updates, s: OptState, value: ArrayLike) -> tuple[Updates, OptState]:
        count = s.count + 1
        mean = s.avg_value + (jnp.asarray(value, jnp.float32) - s.avg_value) / count
        going_on = s._replace(count=count, avg_value=mean)
        full = count >= accumulation_size
        new = jax.tree.map(
            lambda a, b, old: jnp.where(full, a, b).astype(old.dtype), judge(s, mean), going_on, s
        )
        scale = finished(new.scale)
        return jax.tree.map(lambda g: rescale(g, scale), updates), new

    def update(
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        *,
        value: ArrayLike | None = None,
        **extra: Any,
    ) -> tuple[Updates, OptState]:
        del params, extra
        if value is None:
            raise ValueError("reduce_on_plateau: needs the loss: call update(..., value=loss)")
        check_value(value)
        return step(updates, state, value)

    return wrapped(init, update, name="reduce_on_plateau", state=ReduceLROnPlateauState)
