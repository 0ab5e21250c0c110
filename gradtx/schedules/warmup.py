"""Linear warm-up to a peak, then a constant or a decay."""

from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.schedules.constant import constant_schedule
from gradtx.schedules.curves import cosine, mix, safe_power
from gradtx.schedules.decay import exponential_decay
from gradtx.schedules.join import join_schedules
from gradtx.schedules.made import known_schedule
from gradtx.schedules.polynomial import linear_schedule
from gradtx.schedules.steps import (
    check_finite,
    check_not_negative,
    is_number,
    remaining,
    select,
)


@known_schedule
def warmup_constant_schedule(
    init_value: Scalar, peak_value: Scalar, warmup_steps: Scalar
) -> Schedule:
    """Returns a schedule with a linear warm-up, then a constant value.

        value(t) = init_value + (peak_value - init_value) * min(t / warmup_steps, 1)

    Args:
      init_value: the value at the first step, a float scalar.
      peak_value: the value from `warmup_steps` on, a float scalar.
      warmup_steps: the number of warm-up steps, not negative; at 0 the schedule starts at the
        peak.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `warmup_steps` is negative or not finite.

    Example:
      >>> from gradtx.schedules import warmup_constant_schedule
      >>> rate = warmup_constant_schedule(0.0, 1.0, warmup_steps=4)
      >>> print(rate(0), rate(2), rate(4), rate(1000))
      0.0 0.5 1.0 1.0
    """
    check_not_negative("warmup_constant_schedule", warmup_steps=warmup_steps)
    rise = linear_schedule(init_value, peak_value, warmup_steps)
    return join_schedules([rise, constant_schedule(peak_value)], [warmup_steps])


@known_schedule
def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    decay_steps: Scalar,
    end_value: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> Schedule:
    """Returns a schedule with a linear warm-up, then a cosine decay.

        t < warmup_steps: value(t) = init_value + (peak_value - init_value) * t / warmup_steps
        otherwise:        value(t) = end_value + (peak_value - end_value) * w**exponent
        w = (1 + cos(pi * min((t - warmup_steps) / (decay_steps - warmup_steps), 1))) / 2

    Args:
      init_value: the value at the first step, a float scalar.
      peak_value: the value at step `warmup_steps`, a float scalar. If it is 0, the schedule stays
        at 0 after the warm-up, whatever `end_value` is.
      warmup_steps: the number of warm-up steps, not negative; at 0 the schedule starts at the
        peak.
      decay_steps: the number of steps of warm-up and decay *together*; more than `warmup_steps`.
      end_value: the value from `decay_steps` on, a float scalar. Default: 0.
      exponent: the power of the cosine, not negative. Default: 1.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `warmup_steps` or `exponent` is negative, `decay_steps` is not more than
        `warmup_steps`, or one of them is not finite.

    Example:
      >>> from gradtx.schedules import warmup_cosine_decay_schedule
      >>> rate = warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=110)
      >>> print(rate(0), rate(5), rate(10), rate(60), rate(110), rate(111))
      0.0 0.5 1.0 0.5 0.0 0.0
    """
    name = "warmup_cosine_decay_schedule"
    check_not_negative(name, warmup_steps=warmup_steps, exponent=exponent)
    check_finite(name, decay_steps=decay_steps)
    if is_number(warmup_steps) and is_number(decay_steps) and not decay_steps > warmup_steps:
        raise ValueError(
            f"{name}: decay_steps, which includes the warm-up, must be more than warmup_steps, got "
            f"decay_steps={decay_steps} and warmup_steps={warmup_steps}"
        )

    def decay(count: ArrayLike) -> Array:
        weight = safe_power(cosine(remaining(count, decay_steps - warmup_steps)), exponent)
        return mix(weight, peak_value, select(peak_value == 0, 0.0, end_value))

    rise = linear_schedule(init_value, peak_value, warmup_steps)
    return join_schedules([rise, decay], [warmup_steps])


@known_schedule
def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """Returns a schedule with a linear warm-up, then an exponential decay.

        t < warmup_steps: value(t) = init_value + (peak_value - init_value) * t / warmup_steps
        otherwise:        value(t) = peak_value * decay_rate**p
        p = max(t - warmup_steps - transition_begin, 0) / transition_steps

    Args:
      init_value: the value at the first step, a float scalar.
      peak_value: the value at step `warmup_steps`, a float scalar.
      warmup_steps: the number of warm-up steps, not negative; at 0 the schedule starts at the
        peak.
      transition_steps: the number of steps over which the value is multiplied by `decay_rate` once;
        at 0 or below, the value stays at the peak.
      decay_rate: the factor, not negative. At 0 the value stays at the peak.
      transition_begin: the number of steps between the warm-up and the decay, not negative.
        Default: 0.
      staircase: whether the value changes only at the end of every `transition_steps` steps.
        Default: False.
      end_value: the bound of the decay: a lower bound for `decay_rate < 1`, an upper bound
        otherwise. Default: `None`, no bound.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `warmup_steps`, `decay_rate` or `transition_begin` is negative, or one of them or
        `transition_steps` is not finite.

    Example:
      >>> from gradtx.schedules import warmup_exponential_decay_schedule
      >>> rate = warmup_exponential_decay_schedule(
      ...     0.0, 1.0, warmup_steps=10, transition_steps=100, decay_rate=0.5
      ... )
      >>> print(rate(0), rate(5), rate(10), rate(110))
      0.0 0.5 1.0 0.5
    """
    check_not_negative("warmup_exponential_decay_schedule", warmup_steps=warmup_steps)
    rise = linear_schedule(init_value, peak_value, warmup_steps)
    decay = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )
    return join_schedules([rise, decay], [warmup_steps])
