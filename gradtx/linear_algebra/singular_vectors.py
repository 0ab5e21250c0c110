"""Left singular vectors of stacks of wide matrices."""

import jax.numpy as jnp

from gradtx.engine.base import Array
from gradtx.linear_algebra.eigenbases import rounding, within_range


def left_singular_vectors(x: Array) -> tuple[Array, Array]:
    """Computes the left singular vectors of matrices with no more rows than columns.

    Long right singular vectors are not computed: `x = r.H @ q.H`, with the factors of
    `x.H = q @ r`, has the left singular vectors of `r.H`, which is square.

    Args:
      x: the matrices, `[n, rows, columns]`, in float32 or wider.

    Returns:
      The singular vectors as columns, `[n, rows, rows]`, by decreasing singular value, and the
      numbers of singular values that are not 0 up to rounding, `[n]`, int32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.linear_algebra.singular_vectors import left_singular_vectors
      >>> u, rank = left_singular_vectors(jnp.array([[[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]]]))
      >>> print(jnp.abs(u[0]), rank)
      [[0. 1.]
       [1. 0.]] [2]
    """
    unit = within_range(x)
    if x.shape[2] > x.shape[1]:
        unit = jnp.linalg.qr(unit.mT.conj(), mode="r").mT.conj()
    u, values, _ = jnp.linalg.svd(unit, full_matrices=False)
    least = values[:, :1] * rounding(x.shape[1], values.dtype)
    return u, jnp.sum(values > least, 1, dtype=jnp.int32)
