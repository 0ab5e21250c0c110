"""Values given at boundaries, held constant between them or interpolated."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx._arguments import described
from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.schedules.curves import cosine, mix
from gradtx.schedules.made import known_schedule
from gradtx.schedules.steps import (
    as_float,
    check_not_negative,
    exact,
    how_many_reached,
    on_one_scale,
)

CURVES = {"linear": lambda r: r, "cosine": cosine}


@known_schedule
def piecewise_constant_schedule(
    init_value: Scalar, boundaries_and_scales: Mapping[int, Scalar] | None = None
) -> Schedule:
    """Returns a piecewise constant schedule, whose value is multiplied at each boundary.

        value(t) = init_value * prod(scales[b], over b)

    over the boundaries `b <= t`.

    Args:
      init_value: the value before the first boundary, a float scalar.
      boundaries_and_scales: a mapping from steps to the factors by which the value is multiplied
        there, in any order; steps and factors are not negative. Default: `None`, no boundaries.

    Returns:
      A function of the step count.

    Raises:
      ValueError: a boundary or a scale is negative or not finite.

    Example:
      >>> from gradtx.schedules import piecewise_constant_schedule
      >>> rate = piecewise_constant_schedule(1.0, {100: 0.5, 200: 0.1})
      >>> print(rate(99), rate(100), rate(200))
      1.0 0.5 0.05
    """
    boundaries, values = _values_at(
        "piecewise_constant_schedule", init_value, boundaries_and_scales
    )

    def schedule(count: ArrayLike) -> Array:
        return as_float(values)[how_many_reached(*on_one_scale(count, boundaries))]

    return schedule


@known_schedule
def piecewise_interpolate_schedule(
    interpolate_type: Literal["linear", "cosine"],
    init_value: Scalar,
    boundaries_and_scales: Mapping[int, Scalar] | None = None,
) -> Schedule:
    """Returns a schedule that interpolates between boundaries, linearly or along half cosines.

        value(b[i]) = init_value * scales[b[1]] * ... * scales[b[i]];   value(0) = init_value
        b[i] <= t < b[i+1]:  value(t) = value(b[i]) + (value(b[i+1]) - value(b[i])) * c(s)

    for the boundaries `b`, where `s = (t - b[i]) / (b[i+1] - b[i])`, and `c(s)` is `s` or
    `(1 - cos(pi * s)) / 2`. After the last boundary, its value is held. A boundary at step 0 scales
    the first value.

    Args:
      interpolate_type: `"linear"` or `"cosine"`.
      init_value: the value at the first step, a float scalar.
      boundaries_and_scales: a mapping from steps to the ratios of the value there to the value at
        the previous boundary (at first, to `init_value`), in any order; steps and ratios are not
        negative. Default: `None`, no boundaries.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `interpolate_type` is unknown, or a boundary or a scale is negative or not finite.

    Example:
      >>> from gradtx.schedules import piecewise_interpolate_schedule
      >>> rate = piecewise_interpolate_schedule("linear", 1.0, {100: 0.5, 200: 0.0})
      >>> print(rate(0), rate(50), rate(100), rate(150), rate(300))
      1.0 0.75 0.5 0.25 0.0
    """
    function = "piecewise_interpolate_schedule"
    if interpolate_type not in CURVES:
        raise ValueError(
            f"{function}: interpolate_type must be one of {', '.join(map(repr, CURVES))}, got "
            f"{interpolate_type!r}"
        )
    return interpolate(interpolate_type, *_values_at(function, init_value, boundaries_and_scales))


@known_schedule
def interpolate(
    interpolate_type: Literal["linear", "cosine"],
    boundaries: Sequence[float],
    values: Sequence[Scalar],
) -> Schedule:
    """Returns a schedule that interpolates between given values at given steps.

    Args:
      interpolate_type: `"linear"` or `"cosine"`.
      boundaries: steps in ascending order, as Python numbers; one fewer than there are values.
      values: the value at step 0, then the value at each boundary, float scalars.
    """
    curve = CURVES[interpolate_type]

    def schedule(count: ArrayLike) -> Array:
        t, marks = on_one_scale(count, [0, *boundaries])
        # The last value is held: its interval, of any length, ends with the same value.
        lengths = np.append(np.diff(marks), marks.dtype.type(1))
        table = as_float([*values, values[-1]])
        i = how_many_reached(t, marks[1:])
        passed = jnp.minimum(t - jnp.asarray(marks)[i], jnp.asarray(lengths)[i])
        length = jnp.asarray(lengths)[i]
        r = as_float(length - passed) / as_float(length)
        return mix(curve(r), table[i], table[i + 1])

    return schedule


def _values_at(
    function: str, init_value: Scalar, boundaries_and_scales: Mapping[int, Scalar] | None
) -> tuple[list[int], list[Scalar]]:
    """Returns the boundaries in order, and the values: the first, then one for each boundary."""
    given = {} if boundaries_and_scales is None else boundaries_and_scales
    if not isinstance(given, Mapping):
        told = f"a mapping from steps to factors, such as {{100: 0.1}}, got {described(given)}"
        raise TypeError(f"{function}: boundaries_and_scales must be {told}")
    ordered = sorted(given.items())
    for boundary, scale in ordered:
        check_not_negative(function, boundary=boundary, scale=scale)
    scales = [exact(scale) for _, scale in ordered]
    values = accumulate(scales, lambda value, scale: value * scale, initial=exact(init_value))
    return [boundary for boundary, _ in ordered], list(values)
