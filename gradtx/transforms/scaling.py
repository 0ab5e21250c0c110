"""Multiplying updates by a number, a schedule, or a learning rate."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.engine.base import Array, EmptyState, GradientTransformation, ScalarOrSchedule, Schedule
from gradtx.engine.leafwise import leafwise
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
        EmptyState, None, _times, shared=lambda step, extra: {"factor": step_size}, name="scale"
    )


def _times(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    return times(s.factor, g), Slots()


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
        shared=lambda step, extra: {"factor": step_size_fn(step)},
        name="scale_by_schedule",
    )


def value_at(scalar_or_schedule: ScalarOrSchedule, step: Any) -> Any:
    """Gives a schedule's value at a step, and a number as it is.

    This is the one place where the two are told apart.

    Args:
      scalar_or_schedule: a number, a scalar array, or a function of the step count.
      step: the step count, 0 at the first step.
    """
    return scalar_or_schedule(step) if callable(scalar_or_schedule) else scalar_or_schedule


def rate_of(learning_rate: ScalarOrSchedule) -> Any:
    """Makes the `shared` function of a rule that multiplies by a learning rate.

    The keyword argument `learning_rate` of `update` takes the place of the constant or schedule
    for that call. It is always a runtime value: another number does not compile again.

    Args:
      learning_rate: a number, a scalar array, or a schedule.
    """

    def shared(step: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
        override = extra.get("learning_rate")
        if override is not None:
            return {"learning_rate": jnp.asarray(override)}
        return {"learning_rate": value_at(learning_rate, step)}

    return shared


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule = None, *, flip_sign: bool = True
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
        shared=rate_of(1.0 if learning_rate is None else learning_rate),
        name="scale_by_learning_rate",
    )


def _descend(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    return times(-s.learning_rate, g), Slots()


def _ascend(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    return times(s.learning_rate, g), Slots()
