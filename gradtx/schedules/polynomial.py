"""Polynomial and linear schedules between two values."""

from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.schedules.curves import mix, safe_power
from gradtx.schedules.made import known_schedule
from gradtx.schedules.steps import check_finite, check_not_negative, remaining


@known_schedule
def polynomial_schedule(
    init_value: Scalar,
    end_value: Scalar,
    power: Scalar,
    transition_steps: Scalar,
    transition_begin: Scalar = 0,
) -> Schedule:
    """Returns a schedule between two values along a power of the remaining fraction.

        r(t)     = 1 - clip((t - transition_begin) / transition_steps, 0, 1)
        value(t) = end_value + (init_value - end_value) * r**power

    Args:
      init_value: the value until `transition_begin`, a float scalar.
      end_value: the value from `transition_begin + transition_steps` on, a float scalar.
      power: the exponent, not negative. With 1 the schedule is linear; with more, it changes fast
        at first, then slowly.
      transition_steps: the number of steps of the transition; at 0 or below, the value stays at
        `init_value`.
      transition_begin: the step at which the transition begins, not negative. Default: 0.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `power` or `transition_begin` is negative, or one of them or `transition_steps` is
        not finite.

    Example:
      >>> from gradtx.schedules import polynomial_schedule
      >>> decay = polynomial_schedule(1.0, 0.0, power=2, transition_steps=10)
      >>> print(decay(0), decay(5), decay(10), decay(11))
      1.0 0.25 0.0 0.0
    """
    check_not_negative("polynomial_schedule", power=power, transition_begin=transition_begin)
    check_finite("polynomial_schedule", transition_steps=transition_steps)

    def schedule(count: ArrayLike) -> Array:
        r = remaining(count, transition_steps, transition_begin)
        return mix(safe_power(r, power), init_value, end_value)

    return schedule


@known_schedule
def linear_schedule(
    init_value: Scalar,
    end_value: Scalar,
    transition_steps: Scalar,
    transition_begin: Scalar = 0,
) -> Schedule:
    """Returns a schedule that is linear between two values.

        p(t)     = clip((t - transition_begin) / transition_steps, 0, 1)
        value(t) = (1 - p) * init_value + p * end_value

    Args:
      init_value: the value until `transition_begin`, a float scalar.
      end_value: the value from `transition_begin + transition_steps` on, a float scalar.
      transition_steps: the number of steps of the transition; at 0 or below, the value stays at
        `init_value`.
      transition_begin: the step at which the transition begins, not negative. Default: 0.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `transition_begin` is negative, or it or `transition_steps` is not finite.

    Example:
      >>> from gradtx.schedules import linear_schedule
      >>> down = linear_schedule(1.0, 0.5, transition_steps=10)
      >>> print(down(0), down(5), down(10), down(11))
      1.0 0.75 0.5 0.5
    """
    check_not_negative("linear_schedule", transition_begin=transition_begin)
    check_finite("linear_schedule", transition_steps=transition_steps)
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)
