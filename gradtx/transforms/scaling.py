"""Multiplying updates by a number, a schedule, or a learning rate."""

from typing import Any, NamedTuple

from gradtx.engine.base import Array, EmptyState, GradientTransformation, ScalarOrSchedule, Schedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times
from gradtx.engine.roles import Clock, Count, Rate, declared
from gradtx.engine.rules import Slots


@declared
class ScaleByScheduleState(NamedTuple):
    """The state of `scale_by_schedule`.

    Attributes:
      count: the number of steps taken.
    """

    count: Count


@declared
class ScaleByLearningRateState(NamedTuple):
    """The state of `scale_by_learning_rate`.

    Attributes:
      count: the number of steps taken.
      learning_rate: the rate that the last step used; before any step, the first one's.
    """

    count: Clock
    learning_rate: Rate


ScaleState = EmptyState


@piece
def scale(step_size: Any) -> GradientTransformation:
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


def _times(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
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
    """Turns a direction of ascent into a step of descent: `-learning_rate * g`.

    The rate that was used stays readable in the state, and `update(..., learning_rate=x)` takes
    its place for one call, under `jit` too and without compiling again.

    Args:
      learning_rate: a number, a scalar array, or a schedule. Default: `None`, a rate of 1.
      flip_sign: whether to multiply by -1 as well. Default: yes, to descend.

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


def _descend(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    return times(-s.learning_rate, g), Slots()


def _ascend(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    return times(s.learning_rate, g), Slots()
