"""Left singular vectors of stacks of matrices."""

import jax.numpy as jnp

from gradtx.engine.base import Array
from gradtx.linear_algebra.decompositions import triangular_factor
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
        unit = triangular_factor(unit.mT.conj()).mT.conj()
    u, values, _ = jnp.linalg.svd(unit, full_matrices=False)
    least = values[:, :1] * rounding(x.shape[1], values.dtype)
    return u, jnp.sum(values > least, 1, dtype=jnp.int32)


def principal_vectors(g: Array, old: Array, *, only_range: bool = False) -> Array:
    """Returns the largest left singular vectors, each with the sign of the one that it replaces.

    One that replaces zeros, or is orthogonal to the last, has a largest element that is positive.
    Matrices of zeros, and those that are not finite, keep the old ones.

    Args:
      g: matrices `(n, rows, columns)`.
      old: the vectors so far, `(n, rows, rank)`.
      only_range: whether vectors of singular values that are rounding errors, of which any are
        as good as others, are zeros instead. Default: False.
    """
    g = g.astype(jnp.result_type(g, old))
    size = jnp.max(jnp.abs(g), (1, 2), keepdims=True)
    usable = (size > 0) & (size < jnp.inf)
    # Some algorithms fail for very large or small elements. The reciprocal of the scale must be a
    # normal number as well: the division may be compiled to a multiplication by it.
    top = float(jnp.finfo(size.dtype).max) ** 0.75
    unit = jnp.where(usable, g / jnp.clip(size, 1 / top, top).astype(g.dtype), 0)
    if g.shape[2] > g.shape[1]:
        # `g = r.H @ q.H` has the left singular vectors of `r.H`, which is square: the long right
        # singular vectors are not needed, and not computed.
        unit = triangular_factor(unit.mT.conj()).mT.conj()
    u, values, _ = jnp.linalg.svd(unit, full_matrices=False)
    u = u[:, :, : old.shape[2]]
    if only_range:
        least = values[:, :1] * rounding(g.shape[1], values.dtype)
        u = jnp.where((values > least)[:, None, : old.shape[2]], u, 0)
    turned = turned_to(u, old)
    found = usable & jnp.all(jnp.isfinite(u), (1, 2), keepdims=True)
    return jnp.where(found, turned, old).astype(old.dtype)


def turned_to(u: Array, old: Array) -> Array:
    """Returns vectors with the signs for which they are nearest to others.

    Where the other is zero, or orthogonal, the largest element becomes positive.

    Args:
      u: vectors as columns, `(n, rows, rank)`.
      old: the others.
    """
    along = jnp.sum(old.conj() * u, 1, keepdims=True)
    largest = jnp.take_along_axis(u, jnp.argmax(jnp.abs(u), 1, keepdims=True), 1)
    along = jnp.where(along == 0, largest, along)
    length = jnp.abs(along)
    return u * jnp.where(length > 0, along.conj() / jnp.where(length > 0, length, 1), 1)
