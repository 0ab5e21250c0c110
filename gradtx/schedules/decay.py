"""Decays that have no end: by steps, exponential, and with the inverse of time."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Schedule
from gradtx.engine.made import known_schedule
from gradtx.schedules.curves import geometric
from gradtx.schedules.steps import (
    Scalar,
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
    """Multiplies by `decay_rate` over every `transition_steps` steps.

        value(t) = init_value * decay_rate**p,  p = max(t - transition_begin, 0) / transition_steps

    With `staircase`, `p` is rounded down. A schedule of this form with the rate as an exponent,
    `init_value * exp(-rate * t)`, is `natural_exp_decay_schedule`.

    Args:
      init_value: the value at the first step, a float scalar.
      transition_steps: after how many steps the value has been multiplied once; at 0 or below,
        the value stays at `init_value`.
      decay_rate: the factor, not negative. At 0 the value stays at `init_value`.
      transition_begin: the step at which the decay begins, not negative; default 0.
      staircase: whether the value falls all at once at the end of every `transition_steps` steps,
        and not a little at each; default `False`.
      end_value: where the value stops: a lower bound for `decay_rate < 1`, an upper bound
        otherwise; default `None`, no bound but the largest float.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `decay_rate` or `transition_begin` is negative, or a number is not finite.

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
        moves = (transition_steps > 0) & (decay_rate != 0)
        ratio = select(moves, exact(decay_rate), 1.0)
        power = transitions(count, transition_steps, transition_begin, staircase)
        value = geometric(init_value, ratio, power)
        if end_value is None:
            return value
        end = as_float(end_value)
        bounded = select(ratio < 1, jnp.maximum(value, end), jnp.minimum(value, end))
        return select(moves, bounded, value)

    return schedule


@known_schedule
def step_decay_schedule(init_value: Scalar, period: Scalar, factor: Scalar = 0.5) -> Schedule:
    """Multiplies by `factor` at the end of every period.

        value(t) = init_value * factor**floor(t / period)

    Two rules of thumb for training image classifiers: halve every 5 epochs, or take a tenth every
    20 epochs. An epoch is the number of training examples divided by the batch size, in steps.
    For steps at boundaries of one's choice there is `piecewise_constant_schedule`.

    Args:
      init_value: the value during the first period, a float scalar.
      period: how many steps one value is held, positive.
      factor: the ratio of one period's value to the last one's, not negative; default 0.5.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `period` is not positive, or `factor` is negative.

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
    """Decays exponentially with time.

        value(t) = init_value * exp(-rate * t)

    Args:
      init_value: the value at the first step, a float scalar.
      rate: the `k` of `exp(-k t)`, for each step, not negative. For a rate that is meant for each
        epoch, give it divided by the number of steps in an epoch.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `rate` is negative.

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
    """Decays with the inverse of time.

        value(t) = init_value / (1 + rate * t)

    Its sum over all steps diverges and the sum of its squares does not, which is what Robbins and
    Monro's "A Stochastic Approximation Method" (1951) asks of step sizes.

    Args:
      init_value: the value at the first step, a float scalar.
      rate: the `k` of `1 / (1 + k t)`, for each step, not negative: after `1 / rate` steps the
        value has halved.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `rate` is negative.

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
