"""A constant schedule."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.engine.numerics import value_of
from gradtx.schedules.made import known_schedule
from gradtx.schedules.steps import as_float


@known_schedule
def constant_schedule(value: Scalar) -> Schedule:
    """Returns a schedule that has the same value at every step.

        value(t) = value

    Args:
      value: the value, a float scalar.

    Returns:
      A function of the step count.

    Example:
      >>> from gradtx.schedules import constant_schedule
      >>> print(constant_schedule(0.1)(1000))
      0.1
    """

    def schedule(count: ArrayLike) -> Array:
        shape = jnp.broadcast_shapes(jnp.shape(count), jnp.shape(value_of(value)))
        return jnp.broadcast_to(as_float(value), shape)

    return schedule
