"""RAdam's warm-up, while the variance of an average of squares is large."""

import math

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.engine.numerics import Number, default_float
from gradtx.schedules.made import known_schedule
from gradtx.schedules.steps import as_float, elapsed


@known_schedule
def rectified_schedule(value: Scalar, b2: Scalar = 0.999) -> Schedule:
    """Returns a schedule that rises to `value` as the second moment of Adam becomes reliable.

        rho = rho_inf - 2 * (t+1) * b2**(t+1) / (1 - b2**(t+1)),  rho_inf = 2 / (1-b2) - 1
        r = sqrt((rho-4) * (rho-2) * rho_inf / ((rho_inf-4) * (rho_inf-2) * rho))
        rho > 4:   value(t) = value * r
        otherwise: value(t) = 0

    It is the warm-up of `radam` without its first steps, in which only momentum counts. With it,
    `schedule_free_adamw(rectified_schedule(2.5e-3), b2=0.999)` is schedule-free RAdam: the first
    four steps are skipped, and the later ones have the weights of their rates. The source is Liu et
    al., "On the Variance of the Adaptive Learning Rate and Beyond" (arXiv:1908.03265).

    Args:
      value: the value after the warm-up, a float scalar.
      b2: the decay rate of the average of squares, in [0, 1). If it is at most 0.6, `rho` stays
        below 4, and the schedule at 0. Default: 0.999.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `b2` is not in [0, 1).

    Example:
      >>> from gradtx.schedules import rectified_schedule
      >>> rate = rectified_schedule(1.0)
      >>> print(rate(3), f"{rate(4):.3f} {rate(1000):.2f} {rate(10_000):.2f}")
      0.0 0.017 0.65 1.00
    """
    if isinstance(b2, (int, float)) and not 0 <= b2 < 1:
        raise ValueError(f"rectified_schedule: b2 must be in [0, 1), got {b2}")

    def schedule(count: ArrayLike) -> Array:
        t = elapsed(count) + 1
        ready, r = rectification(b2, t, 4.0)
        return as_float(value) * jnp.where(ready, r, 0)

    return schedule


def rectification(decay: Scalar, steps: ArrayLike, threshold: Scalar) -> tuple[Array, Array]:
    """Returns whether an average of squares is reliable, and the factor for its variance.

    Args:
      decay: the decay rate of the average, in [0, 1).
      steps: the number of squares in the average, at least 1.
      threshold: the least effective number of squares; values up to 4 mean just above 4.
    """
    rho = effective_length(decay, steps)
    ready = jnp.logical_and(rho > 4, rho >= threshold)
    # Before that, any number above 4 keeps the derivative of the root finite.
    rho, rho_inf = (jnp.where(ready, x, 5.0) for x in (rho, (1 + decay) / (1 - decay)))
    return ready, lax.sqrt(_inverse_variance(rho) / _inverse_variance(rho_inf))


def _inverse_variance(rho: Array) -> Array:
    """Returns the inverse variance of `1 / sqrt(nu)`, up to a factor, for `rho` squares in `nu`."""
    return (rho - 4) * (rho - 2) / rho


def effective_length(decay: Scalar, steps: ArrayLike) -> Array:
    """Returns the effective number of values in a moving average that started at zero.

    `2 / (1-b) - 1 - 2 * t * b**t / (1-b**t)` for the decay rate `b` after `t` steps; 1 after the
    first. At `b=0.999` that is a small difference of numbers near 2000. With `x = -log(b) / 2` and
    `f(y) = 1 + 1/y - coth(y)` it is `t * f(t*x) + 1 - f(x)`, without cancellation.

    Args:
      decay: the decay rate of the average, in [0, 1).
      steps: the number of values in the average; a scalar, at least 1.

    Example:
      >>> from gradtx.schedules.rectified import effective_length
      >>> print(effective_length(0.5, 2))
      1.666666
    """
    t = jnp.asarray(steps, default_float())
    positive = decay > 0
    if isinstance(positive, bool):
        x = -math.log(decay) / 2 if positive else 1.0
    else:
        known = isinstance(decay, Number)
        x = -(decay.log if known else jnp.log(jnp.where(positive, decay, 0.5))) / 2
        x = jnp.where(positive, x, 1)
    x = jnp.asarray(x, t.dtype)
    # With decay rate 0 the average holds one value.
    return jnp.where(positive, t * _falling(t * x) + 1 - _falling(x), 1)


def _falling(y: Array) -> Array:
    """Returns `1 + 1/y - coth(y)` for positive `y`, which falls from 1 to 0."""
    small = y < 1
    square = lax.square(jnp.where(small, y, 1))
    fraction = jnp.full_like(y, 21)
    for odd in range(19, 1, -2):  # Lambert's: coth(y) - 1/y = y / (3 + y^2 / (5 + y^2 / (7 + ...)))
        fraction = odd + square / fraction
    large = jnp.where(small, 1, y)
    decayed = jnp.exp(-2 * large)
    return jnp.where(small, 1 - y / fraction, 1 / large - 2 * decayed / (1 - decayed))
