"""Several schedules in turn."""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._arguments import counted
from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.schedules.made import known_schedule
from gradtx.schedules.steps import as_float, check_not_negative, elapsed, is_number, whole


@known_schedule
def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[Scalar]) -> Schedule:
    """Returns a schedule made of several schedules in turn, each of which starts at its own step 0.

        boundaries[i-1] <= t < boundaries[i]:  value(t) = schedules[i](t - boundaries[i-1])

    A schedule is never called with a negative step: before its turn, it is called with step 0.

    Args:
      schedules: functions of the step count, at least one.
      boundaries: the steps at which the second, third, ... schedule begins, not negative and in
        ascending order; one fewer than there are schedules. A schedule between two equal boundaries
        has no steps.

    Returns:
      A function of the step count.

    Raises:
      ValueError: the numbers of schedules and boundaries don't match, or boundaries are negative,
        not finite or out of order.

    Example:
      >>> from gradtx.schedules import constant_schedule, join_schedules, linear_schedule
      >>> parts = [linear_schedule(0.0, 1.0, 4), constant_schedule(1.0), constant_schedule(0.1)]
      >>> rate = join_schedules(parts, boundaries=[4, 10])
      >>> print(rate(0), rate(2), rate(4), rate(9), rate(10))
      0.0 0.5 1.0 1.0 0.1
    """
    schedules, boundaries = list(schedules), list(boundaries)
    if not schedules or len(boundaries) != len(schedules) - 1:
        raise ValueError(
            "join_schedules: needs one boundary fewer than there are schedules, got "
            f"{counted(len(schedules), 'schedule')} and "
            f"{counted(len(boundaries), 'boundary', 'boundaries')}"
        )
    for boundary in boundaries:
        check_not_negative("join_schedules", boundary=boundary)
    for a, b in pairwise(boundaries):
        if is_number(a) and is_number(b) and a > b:
            raise ValueError(f"join_schedules: boundaries must ascend, got {a} before {b}")

    def schedule(count: ArrayLike) -> Array:
        count = jnp.asarray(count)
        value = as_float(schedules[0](count))
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            begun = count >= whole(boundary)
            value = jnp.where(begun, as_float(following(elapsed(count, boundary))), value)
        return value

    return schedule
