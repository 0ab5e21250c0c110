"""Checks of the arguments of functions of matrices."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.engine.numerics import default_float, widen


def wide_matrix(name: str, matrix: ArrayLike) -> Array:
    """Returns a matrix in the dtype to compute in: float32 or wider.

    Args:
      name: the name of the calling function, for errors.
      matrix: an array of two axes; integers become floats.

    Raises:
      ValueError: it does not have two axes.
    """
    matrix = jnp.asarray(matrix)
    if matrix.ndim != 2:
        raise ValueError(f"{name}: needs a matrix, got the shape {matrix.shape}")
    if not jnp.issubdtype(matrix.dtype, jnp.inexact):
        matrix = matrix.astype(default_float())
    return widen(matrix)


def wide_square_matrix(name: str, matrix: ArrayLike) -> Array:
    """Returns a square matrix in the dtype to compute in, see `wide_matrix`.

    Args:
      name: the name of the calling function, for errors.
      matrix: an array of shape `[n, n]`.

    Raises:
      ValueError: it is not square.
    """
    matrix = wide_matrix(name, matrix)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: needs a square matrix, got the shape {matrix.shape}")
    return matrix


def narrow_dtype(*arrays: ArrayLike) -> np.dtype:
    """Returns the dtype of a result: what arguments promote to, or the default float for integers.

    Args:
      *arrays: the arguments.
    """
    dtype = jnp.result_type(*map(jnp.asarray, arrays))
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else default_float()
