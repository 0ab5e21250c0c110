"""The curves along which schedules interpolate between two values.

Each is a function of `r`, the fraction of the interval that remains, and returns the weight of the
first value: 1 at `r = 1`, 0 at `r = 0`. As functions of `r` they keep their relative accuracy at
the end, where a schedule is near zero and `1 + cos` has lost its digits.
"""

import math

import jax.numpy as jnp

from gradtx.engine.base import Array, Scalar
from gradtx.schedules.steps import as_float, exact, select


def cosine(r: Array) -> Array:
    """Returns half a cosine, `(1 - cos(pi r)) / 2`, as `sin(pi r / 2)**2`."""
    return jnp.square(jnp.sin(0.5 * math.pi * r))


def one_minus_sqrt(r: Array) -> Array:
    """Returns `1 - sqrt(1 - r)`, as `r / (1 + sqrt(1 - r))`."""
    return r / (1 + safe_power(1 - r, 0.5))


def safe_power(base: Scalar, exponent: Scalar) -> Scalar:
    """Returns `base**exponent` for `base >= 0`, with a finite gradient at 0 for any exponent."""
    if isinstance(exponent, (int, float)) and exponent >= 1:
        return base if exponent == 1 else base**exponent  # their gradients are finite
    positive = base > 0
    at_zero = as_float(exponent == 0)
    return select(positive, select(positive, base, 1) ** exponent, at_zero)


def geometric(start: Scalar, ratio: Scalar, n: Array) -> Array:
    """Returns `start * ratio**n`, for `ratio >= 0`, or the largest float where that overflows.

    Not infinity, because 0 times infinity would be NaN.
    """
    largest = jnp.finfo(n.dtype).max
    growth = jnp.minimum(safe_power(exact(ratio), n), largest)
    return jnp.clip(as_float(exact(start) * growth), -largest, largest)


def mix(weight: Scalar, start: Scalar, end: Scalar) -> Array:
    """Returns `weight * start + (1 - weight) * end`: exactly `start` at weight 1, `end` at 0."""
    start, end = exact(start), exact(end)
    return as_float(jnp.where(weight < 1, end + (start - end) * weight, start))


def geometric_mix(weight: Array, start: Scalar, end: Scalar) -> Array:
    """Returns `start**weight * end**(1 - weight)`, both positive; exact at weights 1 and 0."""
    start, end = exact(start), exact(end)
    return as_float(jnp.where(weight < 1, end * (start / end) ** weight, start))
