"""Multiplying updates by a number, a schedule, or a learning rate."""

from typing import NamedTuple

from gradtx._roles import KEPT, Clock, Count, Rate, declared, declared_as
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    Schedule,
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots


@declared
class ScaleByScheduleState(NamedTuple):
    """The state of `scale_by_schedule`.

    Attributes:
      count: the number of steps taken.
    """

    count: Count


@declared_as("scale_by_learning_rate")
class _CountAndRate(NamedTuple):
    count: Clock = KEPT
    learning_rate: Rate = KEPT


@declared
class ScaleByLearningRateState(_CountAndRate, ScaleByScheduleState):  # type: ignore[misc]
    """The state of `scale_by_learning_rate`; both fields may be omitted, as in optax.

    Attributes:
      count: the number of steps taken; needed for a schedule.
      learning_rate: the learning rate of the last step; before any step, that of the first.
    """

    __slots__ = ()


ScaleState = EmptyState


@piece
def scale(step_size: Scalar) -> GradientTransformation:
    """Multiplies the updates by a number: `g * step_size`.

    Args:
      step_size: the factor; negative to descend.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale(-0.5)
      >>> print(tx.update(jnp.ones(2), tx.init(None))[0])
      [-0.5 -0.5]
    """
    return leafwise(
        EmptyState, None, _times, scalars={"factor": step_size}, integers=True, name="scale"
    )


def _times(g: Array, s: Slots, step: Array | None, p: None) -> tuple[Array, Slots]:
    return times(s.factor, g), Slots()


@piece
def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformation:
    """Multiplies the updates by a schedule's value: `g * step_size_fn(count)`.

    Args:
      step_size_fn: a function of the step count, which is 0 at the first step.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_schedule(lambda count: 1.0 / (count + 1))
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      >>> print(updates)
      [0.5]
    """
    return leafwise(
        ScaleByScheduleState,
        None,
        _times,
        scalars={"factor": step_size_fn},
        integers=True,
        name="scale_by_schedule",
    )


@piece
def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiplies the updates by the negative learning rate, to descend: `-learning_rate * g`.

    The state has the learning rate of the last step. `update(..., learning_rate=x)` overrides it
    for one call, under `jit` too and without recompilation.

    Args:
      learning_rate: a number, a scalar array, or a schedule. Default: `None`, a learning rate of 1.
      flip_sign: whether to multiply by -1 as well. Default: True, to descend.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_learning_rate(0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> print(tx.update(jnp.ones(1), state)[0])
      [-0.5]
      >>> updates, state = tx.update(jnp.ones(1), state, learning_rate=0.25)
      >>> print(updates, state.learning_rate)
      [-0.25] 0.25
    """
    return leafwise(
        ScaleByLearningRateState,
        None,
        _descend if flip_sign else _ascend,
        rate=1.0 if learning_rate is None else learning_rate,
        integers=True,
        name="scale_by_learning_rate",
    )


def _descend(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
    return times(-s.learning_rate, g), Slots()


def _ascend(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
    return times(s.learning_rate, g), Slots()
