"""How schedules read the step count.

Counts stay integers for as long as they can: float32 cannot tell 2**24 from 2**24 + 1, and a
schedule that begins at a late step would begin at the wrong one.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import Array
from gradtx.engine.numerics import default_float, value_of

Scalar = float | Array
"""A hyperparameter: a Python number, or a scalar array or tracer."""

INT32_MAX = 2**31 - 1


def is_number(x: Any) -> bool:
    """Says whether `x` is a plain number, whose value may be looked at while tracing."""
    return isinstance(x, (int, float, np.integer, np.floating))


def as_float(x: Any) -> Array:
    """Gives `x` in the default float dtype, without a weak type."""
    return jnp.asarray(value_of(x), default_float())


def exact(x: Any) -> Any:
    """Leaves a Python number in double; gives anything else in the default float dtype."""
    return x if isinstance(x, (int, float)) else as_float(x)


def select(condition: Any, x: Any, y: Any) -> Any:
    """Gives `x` where the condition holds and `y` elsewhere; in Python where that can be told."""
    if isinstance(condition, (bool, np.bool_)):
        return x if condition else y
    return jnp.where(condition, value_of(x), value_of(y))


def whole(steps: Any) -> Any:
    """Gives a number of steps as an int where int32 holds it, so that `count - steps` is exact."""
    if not is_number(steps):
        return steps
    if float(steps).is_integer() and abs(steps) <= INT32_MAX:
        return int(steps)
    return float(steps)


def elapsed(count: Any, begin: Any = 0) -> Array:
    """Counts the steps since `begin`: `max(count - begin, 0)`.

    Args:
      count: the step count, not negative.
      begin: the step at which counting starts, not negative.
    """
    begin = whole(begin)
    if isinstance(begin, int) and begin == 0:
        return jnp.asarray(count)
    return jnp.maximum(jnp.asarray(count), begin) - begin


def remaining(count: Any, steps: Any, begin: Any = 0) -> Array:
    """Gives the fraction of a stretch that lies ahead: 1 until `begin`, 0 from its end on.

    A stretch without steps never ends: its fraction stays at 1.

    Args:
      count: the step count.
      steps: how long the stretch is.
      begin: the step at which it begins, not negative.
    """
    ends = steps > 0
    steps = select(ends, whole(steps), 1)
    left = as_float(steps - jnp.minimum(elapsed(count, begin), steps)) / exact(steps)
    return select(ends, left, jnp.ones_like(left))


def transitions(count: Any, steps: Any, begin: Any = 0, staircase: bool = False) -> Array:
    """Counts how many stretches of `steps` steps have passed since `begin`, as a float.

    Stretches without steps never pass: their number stays at 0.

    Args:
      count: the step count.
      steps: how long one stretch is.
      begin: the step at which the first begins, not negative.
      staircase: whether to count whole stretches only.
    """
    pass_by = steps > 0
    steps = select(pass_by, whole(steps), 1)
    since = elapsed(count, begin)
    number = as_float(since // steps) if staircase else as_float(since) / exact(steps)
    return select(pass_by, number, jnp.zeros_like(number))


def on_one_scale(count: Any, boundaries: Sequence[float]) -> tuple[Array, np.ndarray]:
    """Gives the count and the boundaries in one dtype: integers where these hold them exactly.

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
    """Counts the boundaries that are not after `count`, which is also the current piece's index."""
    return jnp.sum(count[..., None] >= boundaries, axis=-1, dtype=jnp.int32)


def check_positive(function: str, **named: Any) -> None:
    """Refuses Python numbers that are not positive and finite."""
    for name, x in named.items():
        if is_number(x) and not 0 < x < math.inf:
            raise ValueError(f"{function}: {name} must be positive and finite, got {name}={x}")


def check_not_negative(function: str, **named: Any) -> None:
    """Refuses Python numbers that are negative or not finite."""
    for name, x in named.items():
        if is_number(x) and not 0 <= x < math.inf:
            raise ValueError(f"{function}: {name} must be finite and not negative, got {name}={x}")


def check_finite(function: str, **named: Any) -> None:
    """Refuses Python numbers that are not finite."""
    for name, x in named.items():
        if is_number(x) and not math.isfinite(x):
            raise ValueError(f"{function}: {name} must be finite, got {name}={x}")
