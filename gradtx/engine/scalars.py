"""Numbers that all leaves use, in a form whose compile time does not grow with their uses."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.engine.concrete import is_traced
from gradtx.engine.numerics import default_float


def total(parts: Sequence[ArrayLike]) -> Array:
    """Returns the sum of numbers, one for each leaf, computed in one operation.

    XLA recomputes cheap values in each kernel that uses them. A sum over all leaves as a chain of
    additions, used by every leaf, would be compiled once for each leaf, and compile time would be
    quadratic in their number. Reductions are not recomputed, and the additional leading zero keeps
    XLA from converting this one into a chain.

    Args:
      parts: scalars, or arrays of one shape.

    Example:
      >>> from gradtx.engine.scalars import total
      >>> print(total([1.0, 2.0, 3.0]))
      6.0
    """
    if not parts:
        return jnp.zeros((), default_float())
    stacked = jnp.stack([jnp.asarray(x) for x in parts])
    one_before = [(1, 0, 0)] + (stacked.ndim - 1) * [(0, 0, 0)]
    return lax.reduce_sum(lax.pad(stacked, np.zeros((), stacked.dtype), one_before), [0])


def finished(x: ArrayLike) -> Array:
    """Returns a number unchanged, in a form that kernels which use it don't recompute; see `total`.

    It is for numbers by which all leaves are multiplied, such as the factor of a clip. It can be
    vmapped and differentiated, and its cost is negligible.

    Args:
      x: a scalar or small array that all leaves use: numbers, booleans, or random keys.
    """
    return _through_a_sum(x) if is_traced(x) else jnp.asarray(x)


@jax.jit  # traced once
def _through_a_sum(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = total([jax.random.key_data(x)])
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    return total([x.astype(jnp.int32)]) > 0 if x.dtype == bool else total([x])
