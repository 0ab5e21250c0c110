"""Eigenbases of stacks of positive semi-definite matrices."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import Array
from gradtx.linear_algebra.decompositions import eigh, qr


class Eigenbases(NamedTuple):
    """Orthonormal eigenvectors of a stack of matrices.

    Attributes:
      vectors: the eigenvectors as columns, `[..., n, n]`, by decreasing eigenvalue.
      rank: the number of eigenvalues that are not 0 up to rounding, `[...]`, int32. The
        eigenvectors from that number on are an arbitrary basis of the null space.
      order: for each eigenvector, the index of the previous basis vector from which it was
        computed, `[..., n]`.
    """

    vectors: Array
    rank: Array
    order: Array


def eigenbases(a: Array) -> Eigenbases:
    """Computes eigenvectors by the eigendecomposition of each matrix.

    Args:
      a: symmetric (or Hermitian) positive semi-definite matrices, `[..., n, n]`, in float32 or
        wider.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.linear_algebra.eigenbases import eigenbases
      >>> found = eigenbases(jnp.diag(jnp.array([0.0, 1.0, 4.0])))
      >>> print(jnp.abs(found.vectors), found.rank)
      [[0. 0. 1.]
       [0. 1. 0.]
       [1. 0. 0.]] 2
    """
    values, vectors = eigh(within_range(a))
    order = jnp.broadcast_to(jnp.arange(values.shape[-1]), values.shape)
    return Eigenbases(jnp.flip(vectors, -1), _rank(values), order)


def next_eigenbases(a: Array, vectors: Array) -> Eigenbases:
    """Approximates eigenvectors by one power iteration from the last ones.

    The columns of `vectors` are sorted by decreasing `diag(vectors.H @ a @ vectors)`, and the
    result is the factor `q` of `q @ r = a @ vectors`. It costs less than an eigendecomposition, and
    is nearly as good if `a` changes slowly.

    Args:
      a: symmetric (or Hermitian) positive semi-definite matrices, `[..., n, n]`, in float32 or
        wider.
      vectors: orthonormal columns, `[..., n, n]`.

    Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321,
    Algorithm 4.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.linear_algebra.eigenbases import next_eigenbases
      >>> found = next_eigenbases(jnp.diag(jnp.array([1.0, 4.0])), jnp.eye(2))
      >>> print(jnp.abs(found.vectors), found.rank)
      [[0. 1.]
       [1. 0.]] 2
    """
    return _power_iteration(a, vectors)[0]


def _power_iteration(a: Array, vectors: Array) -> tuple[Eigenbases, Array]:
    """Returns the result of `next_eigenbases`, and the last vectors' estimated eigenvalues."""
    product = jnp.matmul(within_range(a), vectors, precision=lax.Precision.HIGHEST)
    estimates = jnp.sum((vectors.conj() * product).real, -2)
    order = jnp.argsort(estimates, axis=-1, descending=True)
    q, r = qr(jnp.take_along_axis(product, order[..., None, :], -1))
    found = Eigenbases(q, _rank(jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))), order)
    return found, estimates


def tracked_eigenbases(a: Array, vectors: Array, rank: Array) -> Eigenbases:
    """Computes eigenvectors from the last ones where these are known, and by `eigenbases`
    elsewhere.

    A power iteration from an arbitrary basis of a null space would give another arbitrary basis,
    even if the matrix has no null space any more. So it is used for matrices in which the null
    space of the last basis, if any, still is one, as that of a row that is always 0; if there are
    others, all eigendecompositions are computed.

    Args:
      a: symmetric (or Hermitian) positive semi-definite matrices, `[..., n, n]`, in float32 or
        wider.
      vectors: the last eigenvectors, `[..., n, n]`.
      rank: the rank of the matrices whose eigenvectors they were, `[...]`; 0 if there were none.
    """
    by_qr, estimates = _power_iteration(a, vectors)
    unknown = jnp.arange(a.shape[-1]) >= rank[..., None]
    new = unknown & (estimates > _least(estimates))
    changed = jnp.any(new, -1) | (rank == 0)
    by_eigh = lax.cond(jnp.any(changed), lambda: eigenbases(a), lambda: by_qr)

    def select(x: Array, y: Array) -> Array:
        return jnp.where(jnp.expand_dims(changed, range(changed.ndim, x.ndim)), x, y)

    return Eigenbases(*map(select, by_eigh, by_qr))


def rounding(n: int, dtype: jnp.dtype) -> float:
    """Returns the size below which an eigenvalue is rounding error, relative to the largest.

    Args:
      n: the number of rows.
      dtype: the dtype of the matrices.
    """
    return 4 * n**0.5 * float(jnp.finfo(dtype).eps)


def within_range(a: Array) -> Array:
    """Divides matrices by their largest magnitudes: some algorithms fail for extreme elements.

    Args:
      a: the matrices, `[..., rows, columns]`.
    """
    size = jnp.max(jnp.abs(a), (-2, -1), keepdims=True, initial=0)
    # The reciprocal must be a normal number as well: a division may become a multiplication by it.
    top = float(jnp.finfo(size.dtype).max) ** 0.75
    return a / jnp.clip(size, 1 / top, top).astype(a.dtype)


def _rank(values: Array) -> Array:
    return jnp.sum(values > _least(values), -1, dtype=jnp.int32)


def _least(values: Array) -> Array:
    """Returns the size below which eigenvalues of a matrix are rounding errors."""
    largest = jnp.max(values, -1, keepdims=True, initial=0)
    return largest * rounding(values.shape[-1], values.dtype)
