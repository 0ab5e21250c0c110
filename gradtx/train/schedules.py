"""The schedules of `gradtx train`, whose lengths follow from the length of the run.

Each is a function of the peak rate and of the run's length, a `Length`. `--schedule-set` sets its
keyword arguments: times are in epochs or in fractions of the run, and final rates are fractions of
the peak. Their docstrings are what `gradtx train --help` says about them.
"""

import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx import schedules
from gradtx.engine.base import ScalarOrSchedule, Schedule
from gradtx.train.errors import TrainingError
from gradtx.train.settings import check_settings, options_of, show


class Length(NamedTuple):
    """The length of a run.

    Attributes:
      epochs: the number of epochs.
      steps_per_epoch: the number of steps in each.
    """

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """The number of steps in all epochs."""
        return self.epochs * self.steps_per_epoch


def _constant(rate: float, length: Length) -> ScalarOrSchedule:
    """The peak rate in all steps."""
    return rate


def _step(rate: float, length: Length, factor: float = 0.5, every: float = 5) -> Schedule:
    """The rate is multiplied by `factor` after every `every` epochs."""
    return schedules.step_decay_schedule(rate, every * length.steps_per_epoch, factor)


def _exponential(
    rate: float, length: Length, final: float = 0.01, k: float | None = None
) -> Schedule:
    """The rate `peak * exp(-k * t)`, t in epochs; without k, it falls to `final * peak`."""
    if k is None:
        k = -math.log(_positive("final", final)) / length.epochs
    return schedules.natural_exp_decay_schedule(rate, k / length.steps_per_epoch)


def _inverse(rate: float, length: Length, final: float = 0.1, k: float | None = None) -> Schedule:
    """The rate `peak / (1 + k * t)`, t in epochs; without k, it falls to `final * peak`."""
    if k is None:
        k = (1 / _positive("final", final) - 1) / length.epochs
    return schedules.inverse_time_decay_schedule(rate, k / length.steps_per_epoch)


def _polynomial(rate: float, length: Length, power: float = 2.0, final: float = 0.0) -> Schedule:
    """A fall to `final * peak`, by the remaining part of the run to the power `power`."""
    return schedules.polynomial_schedule(rate, final * rate, power, length.steps)


def _linear(rate: float, length: Length, final: float = 0.0) -> Schedule:
    """A linear fall to `final * peak`."""
    return schedules.linear_schedule(rate, final * rate, length.steps)


def _cosine(rate: float, length: Length, final: float = 0.0) -> Schedule:
    """A fall to `final * peak`, along half a cosine."""
    return schedules.cosine_decay_schedule(rate, length.steps, final)


def _warmup_cosine(
    rate: float, length: Length, warmup: float = 0.1, start: float = 0.1, final: float = 0.0
) -> Schedule:
    """A linear rise from `start * peak` in the part `warmup` of the run, then `cosine`."""
    rising = round(_fraction("warmup", warmup) * length.steps)
    return schedules.warmup_cosine_decay_schedule(
        start * rate, rate, rising, length.steps, final * rate
    )


def _onecycle(rate: float, length: Length, warmup: float = 0.3) -> Schedule:
    """A rise from `peak / 25` in the part `warmup` of the run, then a fall to `peak / 250000`."""
    return schedules.cosine_onecycle_schedule(length.steps, rate, _fraction("warmup", warmup))


def _restarts(
    rate: float, length: Length, cycles: int = 3, mult: int = 2, final: float = 0.0
) -> Schedule:
    """A sequence of `cycles` falls as in `cosine`, each `mult` times as long as the one before."""
    for name, value in (("cycles", cycles), ("mult", mult)):
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {value}")
    periods = sum(mult**i for i in range(cycles))
    # Rounded up: the last cycle may lack a few steps, and no restart falls on the last steps.
    period = math.ceil(length.steps / periods)
    return schedules.cosine_restarts_schedule(rate, period, mult, final * rate)


def _wsd(
    rate: float,
    length: Length,
    warmup: float = 0.1,
    decay: float = 0.2,
    start: float = 0.1,
    final: float = 0.0,
) -> Schedule:
    """A linear rise from `start * peak` in the part `warmup` of the run, then the peak, and a
    fall to `final * peak` in the last part `decay`, by one minus the square root of the time."""
    rising = round(_fraction("warmup", warmup) * length.steps)
    falling = round(_fraction("decay", decay) * length.steps)
    if rising + falling > length.steps:
        raise ValueError(f"warmup + decay must be at most 1, got {warmup} + {decay}")
    return schedules.warmup_stable_decay_schedule(
        start * rate, rate, rising, length.steps - rising - falling, falling, final * rate
    )


def _plateau(
    rate: float,
    length: Length,
    factor: float = 0.5,
    patience: int = 5,
    rtol: float = 1e-4,
    cooldown: int = 0,
    min_scale: float = 0.0,
) -> ScalarOrSchedule:
    """The peak rate, multiplied by `factor` after `patience` epochs whose mean loss is not below
    the lowest so far by the part `rtol` of it; the `cooldown` epochs after that do not count, and
    `min_scale * peak` is the least."""
    return rate


SCHEDULES: dict[str, Callable[..., ScalarOrSchedule]] = {
    "constant": _constant,
    "step": _step,
    "exponential": _exponential,
    "inverse": _inverse,
    "polynomial": _polynomial,
    "linear": _linear,
    "cosine": _cosine,
    "warmup-cosine": _warmup_cosine,
    "onecycle": _onecycle,
    "restarts": _restarts,
    "wsd": _wsd,
    "plateau": _plateau,
}
"""Functions `(rate, length, **settings)` that return a schedule or a constant rate, by name."""


def schedule_settings(name: str) -> dict[str, Any]:
    """Returns the settings of a schedule, with their defaults.

    Args:
      name: the schedule's name in `SCHEDULES`.

    Example:
      >>> from gradtx.train import schedule_settings
      >>> schedule_settings("step")
      {'factor': 0.5, 'every': 5}
    """
    return options_of(SCHEDULES[name], reserved=("rate", "length"))


def schedule_help() -> str:
    """Returns a text about all schedules: their settings with defaults, and what they do."""
    lines = []
    for name, schedule in SCHEDULES.items():
        settings = [f"{key}={show(default)}" for key, default in schedule_settings(name).items()]
        lines.append(f"  {' '.join([f'{name:14}', *settings])}".rstrip())
        about = " ".join((inspect.getdoc(schedule) or "").split())
        lines += textwrap.wrap(about, 78, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def make_schedule(
    name: str, rate: float, length: Length, settings: Mapping[str, Any]
) -> ScalarOrSchedule:
    """Returns a schedule for a run.

    Args:
      name: the schedule's name in `SCHEDULES`.
      rate: the peak rate.
      length: the length of the run.
      settings: settings that replace its defaults.

    Returns:
      A schedule, or a number if the rate is constant.

    Raises:
      TrainingError: a setting is unknown or out of range.

    Example:
      >>> from gradtx.train import Length, make_schedule
      >>> halving = make_schedule("step", 0.1, Length(epochs=20, steps_per_epoch=100), {})
      >>> [f"{halving(epoch * 100):.4f}" for epoch in (0, 5, 10)]
      ['0.1000', '0.0500', '0.0250']
    """
    check_settings("--schedule-set", f"schedule {name}", settings, schedule_settings(name))
    try:
        return SCHEDULES[name](rate, length, **settings)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"schedule {name}: {error}") from None


def same_until(a: ScalarOrSchedule | None, b: ScalarOrSchedule | None, steps: int) -> bool:
    """Returns whether two schedules are equal at the first steps, bit for bit.

    Args:
      a: a schedule, a number, or `None` for an optimizer without a learning rate.
      b: the other one.
      steps: the number of steps to compare.
    """

    def values(rate: ScalarOrSchedule) -> np.ndarray:
        if not callable(rate):
            return np.full(steps, rate, np.float32)
        return np.asarray(jax.vmap(rate)(jnp.arange(steps)))

    if a is None or b is None:
        return a is b
    return bool(np.array_equal(values(a), values(b)))


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a fraction of the run, from 0 to 1, got {value}")
    return value


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return value
