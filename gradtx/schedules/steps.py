"""Arithmetic on step counts, shared by schedules.

Counts stay integers for as long as possible: float32 cannot represent 2**24 + 1, and a schedule
that begins late would begin at the wrong step.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar
from gradtx.engine.numerics import default_float, value_of

INT32_MAX = 2**31 - 1


def is_number(x: Any) -> TypeGuard[float | np.number]:
    """Returns whether `x` is a plain number, whose value is known while tracing."""
    return isinstance(x, (int, float, np.integer, np.floating))


def as_float(x: Any) -> Array:
    """Returns `x` in the default float dtype, without a weak type."""
    return jnp.asarray(value_of(x), default_float())


def exact(x: Scalar) -> Scalar:
    """Returns a Python number as it is, in double, and anything else in the default float dtype."""
    return x if isinstance(x, (int, float)) else as_float(x)


def select(condition: ArrayLike, x: Scalar, y: Scalar) -> Any:
    """Returns `x` where the condition holds, and `y` elsewhere; in Python for a Python boolean."""
    if isinstance(condition, (bool, np.bool_)):
        return x if condition else y
    return jnp.where(condition, value_of(x), value_of(y))


def whole(steps: Scalar) -> Scalar:
    """Returns a number of steps as an int if int32 can hold it, to make `count - steps` exact."""
    if not is_number(steps):
        return steps
    if float(steps).is_integer() and abs(steps) <= INT32_MAX:
        return int(steps)
    return float(steps)


def elapsed(count: ArrayLike, begin: Scalar = 0) -> Array:
    """Returns the number of steps since `begin`: `max(count - begin, 0)`.

    Args:
      count: the step count, not negative.
      begin: the step at which the count starts, not negative.
    """
    begin = whole(begin)
    if isinstance(begin, int) and begin == 0:
        return jnp.asarray(count)
    return jnp.maximum(jnp.asarray(count), begin) - begin


def remaining(count: ArrayLike, steps: Scalar, begin: Scalar = 0) -> Array:
    """Returns the fraction of an interval that remains: 1 until `begin`, 0 from its end on.

    If the interval has no steps, the fraction stays 1.

    Args:
      count: the step count.
      steps: the length of the interval.
      begin: the step at which it begins, not negative.
    """
    ends = steps > 0
    steps = select(ends, whole(steps), 1)
    left = as_float(steps - jnp.minimum(elapsed(count, begin), steps)) / exact(steps)
    return select(ends, left, jnp.ones_like(left))


def transitions(
    count: ArrayLike, steps: Scalar, begin: Scalar = 0, staircase: bool = False
) -> Array:
    """Returns the number of intervals of `steps` steps since `begin`, as a float.

    If the intervals have no steps, the number stays 0.

    Args:
      count: the step count.
      steps: the length of an interval.
      begin: the step at which the first begins, not negative.
      staircase: whether to count whole intervals only. Default: False.
    """
    passes = steps > 0
    steps = select(passes, whole(steps), 1)
    since = elapsed(count, begin)
    number = as_float(since // steps) if staircase else as_float(since) / exact(steps)
    return select(passes, number, jnp.zeros_like(number))


def on_one_scale(count: ArrayLike, boundaries: Sequence[float]) -> tuple[Array, np.ndarray]:
    """Returns the count and the boundaries in one dtype: an integer one if that is exact.

    Args:
      count: the step count.
      boundaries: steps, as Python numbers.

    Returns:
      The count, at least 0, and the boundaries as an array of its dtype.
    """
    count = jnp.maximum(jnp.asarray(count), 0)
    if jnp.issubdtype(count.dtype, jnp.integer) and all(
        isinstance(whole(b), int) for b in boundaries
    ):
        return count, np.asarray(boundaries, count.dtype)
    count = as_float(count)
    return count, np.asarray(boundaries, count.dtype)


def how_many_reached(count: Array, boundaries: np.ndarray) -> Array:
    """Returns the number of boundaries up to `count`, which is the index of its interval."""
    return jnp.sum(count[..., None] >= boundaries, axis=-1, dtype=jnp.int32)


def check_positive(function: str, **named: Scalar) -> None:
    """Raises if a Python number is not positive and finite."""
    for name, x in named.items():
        if is_number(x) and not 0 < x < math.inf:
            raise ValueError(f"{function}: {name} must be positive and finite, got {name}={x}")


def check_not_negative(function: str, **named: Scalar) -> None:
    """Raises if a Python number is negative or not finite."""
    for name, x in named.items():
        if is_number(x) and not 0 <= x < math.inf:
            raise ValueError(f"{function}: {name} must be finite and not negative, got {name}={x}")


def check_finite(function: str, **named: Scalar) -> None:
    """Raises if a Python number is not finite."""
    for name, x in named.items():
        if is_number(x) and not math.isfinite(x):
            raise ValueError(f"{function}: {name} must be finite, got {name}={x}")
