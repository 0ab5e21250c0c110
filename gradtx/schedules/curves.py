"""The curves that schedules follow from one value to another.

Each takes `r`, the fraction of the way that lies ahead, and gives the weight of the value at the
start: 1 at `r = 1`, 0 at `r = 0`. Written in `r`, they keep their relative accuracy down to the
end, where a schedule is near zero and `1 + cos` has lost its digits.
"""

import math
from typing import Any

import jax.numpy as jnp

from gradtx.engine.base import Array
from gradtx.schedules.steps import as_float, exact, select


def cosine(r: Array) -> Array:
    """Gives half a cosine: `(1 - cos(pi r)) / 2`, as `sin(pi r / 2)**2`."""
    return jnp.square(jnp.sin(0.5 * math.pi * r))


def one_minus_sqrt(r: Array) -> Array:
    """Gives `1 - sqrt(1 - r)`, as `r / (1 + sqrt(1 - r))`."""
    return r / (1 + safe_power(1 - r, 0.5))


def safe_power(base: Any, exponent: Any) -> Any:
    """Gives `base**exponent` for `base >= 0`, with a finite gradient at 0 for any exponent."""
    if isinstance(exponent, (int, float)) and exponent >= 1:
        return base if exponent == 1 else base**exponent  # their gradients are finite
    positive = base > 0
    at_zero = as_float(exponent == 0)
    return select(positive, select(positive, base, 1) ** exponent, at_zero)


def geometric(start: Any, ratio: Any, n: Array) -> Array:
    """Gives `start * ratio**n`, for `ratio >= 0`, and the largest float where that overflows.

    Not infinity, because 0 times infinity would be NaN.
    """
    largest = jnp.finfo(n.dtype).max
    growth = jnp.minimum(safe_power(exact(ratio), n), largest)
    return jnp.clip(as_float(exact(start) * growth), -largest, largest)


def mix(weight: Array, start: Any, end: Any) -> Array:
    """Gives `weight * start + (1 - weight) * end`: `start` at weight 1, `end` at 0, to the bit."""
    start, end = exact(start), exact(end)
    return as_float(jnp.where(weight < 1, end + (start - end) * weight, start))


def geometric_mix(weight: Array, start: Any, end: Any) -> Array:
    """Gives `start**weight * end**(1 - weight)`, both positive; `start` and `end` to the bit."""
    start, end = exact(start), exact(end)
    return as_float(jnp.where(weight < 1, end * (start / end) ** weight, start))
