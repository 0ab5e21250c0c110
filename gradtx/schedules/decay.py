"""Decays without an end: stepwise, exponential, and with the inverse of time."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.schedules.curves import geometric
from gradtx.schedules.made import known_schedule
from gradtx.schedules.steps import (
    as_float,
    check_finite,
    check_not_negative,
    check_positive,
    elapsed,
    exact,
    select,
    transitions,
)


@known_schedule
def exponential_decay(
    init_value: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """Returns a schedule that is multiplied by `decay_rate` over every `transition_steps` steps.

        value(t) = init_value * decay_rate**p,  p = max(t - transition_begin, 0) / transition_steps

    With `staircase`, `p` is rounded down. For `init_value * exp(-rate * t)` there is
    `natural_exp_decay_schedule`.

    Args:
      init_value: the value at the first step, a float scalar.
      transition_steps: the number of steps over which the value is multiplied by `decay_rate` once;
        at 0 or below, the value stays at `init_value`.
      decay_rate: the factor, not negative. At 0 the value stays at `init_value`.
      transition_begin: the step at which the decay begins, not negative. Default: 0.
      staircase: whether the value changes only at the end of every `transition_steps` steps.
        Default: False.
      end_value: the bound of the value: a lower bound for `decay_rate < 1`, an upper bound
        otherwise. Default: `None`, no bound except the largest float.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `decay_rate` or `transition_begin` is negative, or one of them or
        `transition_steps` is not finite.

    Example:
      >>> from gradtx.schedules import exponential_decay
      >>> halve = exponential_decay(1.0, transition_steps=10, decay_rate=0.5, end_value=0.2)
      >>> print(halve(0), halve(20), halve(1000))
      1.0 0.25 0.2
    """
    check_finite("exponential_decay", transition_steps=transition_steps)
    check_not_negative(
        "exponential_decay", decay_rate=decay_rate, transition_begin=transition_begin
    )

    def schedule(count: ArrayLike) -> Array:
        decays = (transition_steps > 0) & (decay_rate != 0)
        ratio = select(decays, exact(decay_rate), 1.0)
        power = transitions(count, transition_steps, transition_begin, staircase)
        value = geometric(init_value, ratio, power)
        if end_value is None:
            return value
        end = as_float(end_value)
        bounded = select(ratio < 1, jnp.maximum(value, end), jnp.minimum(value, end))
        return select(decays, bounded, value)

    return schedule


@known_schedule
def step_decay_schedule(init_value: Scalar, period: Scalar, factor: Scalar = 0.5) -> Schedule:
    """Returns a schedule that is multiplied by `factor` at the end of every period.

        value(t) = init_value * factor**floor(t / period)

    Common choices for image classifiers are to halve the value every 5 epochs, or to divide it by
    10 every 20 epochs. The number of steps in an epoch is the number of training examples divided
    by the batch size. For arbitrary boundaries there is `piecewise_constant_schedule`.

    Args:
      init_value: the value during the first period, a float scalar.
      period: the number of steps for which a value is held, positive.
      factor: the ratio of a period's value to that of the previous period, not negative.
        Default: 0.5.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `period` is not positive, `factor` is negative, or one of them is not finite.

    Example:
      >>> from gradtx.schedules import step_decay_schedule
      >>> epoch = 100
      >>> halve = step_decay_schedule(0.2, period=5 * epoch)
      >>> print(halve(0), halve(499), halve(500))
      0.2 0.2 0.1
      >>> tenth = step_decay_schedule(0.2, period=20 * epoch, factor=0.1)
      >>> print(tenth(1999), tenth(2000))
      0.2 0.02
    """
    check_positive("step_decay_schedule", period=period)
    check_not_negative("step_decay_schedule", factor=factor)

    def schedule(count: ArrayLike) -> Array:
        power = transitions(count, period, staircase=True)
        return geometric(init_value, factor, power)

    return schedule


@known_schedule
def natural_exp_decay_schedule(init_value: Scalar, rate: Scalar) -> Schedule:
    """Returns a schedule that decays exponentially with the step count.

        value(t) = init_value * exp(-rate * t)

    Args:
      init_value: the value at the first step, a float scalar.
      rate: the decay rate per step, not negative. Divide a rate per epoch by the number of steps
        in an epoch.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `rate` is negative or not finite.

    Example:
      >>> from gradtx.schedules import natural_exp_decay_schedule
      >>> decay = natural_exp_decay_schedule(1.0, rate=0.01)
      >>> print(decay(0), decay(100))
      1.0 0.36787945
    """
    check_not_negative("natural_exp_decay_schedule", rate=rate)

    def schedule(count: ArrayLike) -> Array:
        return as_float(exact(init_value) * jnp.exp(-exact(rate) * as_float(elapsed(count))))

    return schedule


@known_schedule
def inverse_time_decay_schedule(init_value: Scalar, rate: Scalar) -> Schedule:
    """Returns a schedule that decays with the inverse of the step count.

        value(t) = init_value / (1 + rate * t)

    Its sum over all steps diverges and the sum of its squares converges, as required of step sizes
    by Robbins and Monro, "A Stochastic Approximation Method" (1951).

    Args:
      init_value: the value at the first step, a float scalar.
      rate: the decay rate per step, not negative; after `1 / rate` steps the value has halved.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `rate` is negative or not finite.

    Example:
      >>> from gradtx.schedules import inverse_time_decay_schedule
      >>> decay = inverse_time_decay_schedule(1.0, rate=0.01)
      >>> print(decay(0), decay(100), decay(300))
      1.0 0.5 0.25
    """
    check_not_negative("inverse_time_decay_schedule", rate=rate)

    def schedule(count: ArrayLike) -> Array:
        return as_float(exact(init_value) / (1 + exact(rate) * as_float(elapsed(count))))

    return schedule
