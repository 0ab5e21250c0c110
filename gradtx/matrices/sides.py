"""The two sides of stacks of matrices: their second moments, and products with a matrix of a side.

A matrix of a side is square, `(n, rows, rows)` or `(n, columns, columns)`. One of the shape
`(n, 0, 0)` stands for the identity: it is that of a side which is too long for one.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from gradtx.engine.base import Array, Scalar
from gradtx.engine.numerics import ema

AXES = (1, 2)
"""The axes of rows and columns."""


def sizes(shape: Sequence[int], max_dim: int | None) -> tuple[int, int]:
    """Returns the sizes of the matrices of both sides, 0 for a side that is too long.

    Args:
      shape: the shape of the stack, `(n, rows, columns)`.
      max_dim: the length of the longest side that has a matrix; `None` if every side has.
    """
    rows, columns = (0 if max_dim is not None and x > max_dim else x for x in shape[1:])
    return rows, columns


def identities(n: int, size: int, dtype: jnp.dtype) -> Array:
    """Returns a stack of identity matrices.

    Args:
      n: the number of matrices.
      size: the number of rows.
      dtype: the dtype.
    """
    return jnp.broadcast_to(jnp.eye(size, dtype=dtype), (n, size, size))


def stored_dtype(p: Array, dtype: DTypeLike | None) -> np.dtype:
    """Returns the dtype of the second moments of matrices: a given one, unless they are complex.

    Args:
      p: the matrices.
      dtype: the dtype; `None` for that of the matrices.
    """
    return jnp.dtype(p.dtype if dtype is None or jnp.iscomplexobj(p) else dtype)


def second_moment(g: Array, axis: int) -> Array:
    """Returns `g @ g.H` for the rows of matrices, `g.H @ g` for their columns.

    Args:
      g: the matrices.
      axis: 1 for the rows, 2 for the columns.
    """
    return product(g, g.mT.conj()) if axis == 1 else product(g.mT.conj(), g)


def next_moment(average: Array, g: Array, axis: int, decay: Scalar) -> Array:
    """Returns a moving average of second moments, in the dtype of the matrices.

    Args:
      average: the average so far; of the shape `(n, 0, 0)` for a side that has none.
      g: the matrices.
      axis: 1 for the rows, 2 for the columns.
      decay: decay rate of the average.
    """
    average = average.astype(g.dtype)
    return ema(second_moment(g, axis), average, decay) if average.shape[1] else average


def product(x: Array, y: Array) -> Array:
    """Returns the matrix products of two stacks, in full precision on all devices.

    Args:
      x: the left factors.
      y: the right factors.
    """
    return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


def between(left: Array, x: Array, right: Array) -> Array:
    """Returns `left @ x @ right`.

    Args:
      left: matrices of the rows.
      x: the matrices.
      right: matrices of the columns.
    """
    x = x if left.shape[1] == 0 else product(left, x)
    return x if right.shape[1] == 0 else product(x, right)


def rotated(left: Array, x: Array, right: Array) -> Array:
    """Returns `left.H @ x @ right`: the coordinates of matrices in two bases.

    Args:
      left: the basis of the rows.
      x: the matrices.
      right: the basis of the columns.
    """
    return between(left.mT.conj(), x, right)


def rotated_back(left: Array, x: Array, right: Array) -> Array:
    """Returns `left @ x @ right.H`: the matrices with given coordinates in two bases.

    Args:
      left: the basis of the rows.
      x: the coordinates.
      right: the basis of the columns.
    """
    return between(left, x, right.mT.conj())
