"""The eigenbases of both sides of stacks of matrices, and what is kept in their coordinates."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import Array
from gradtx.linear_algebra.eigenbases import Eigenbases, eigenbases, tracked_eigenbases
from gradtx.matrices.sides import AXES, identities

BasisMethod = Literal["qr", "eigh"]


class Bases(NamedTuple):
    """Eigenbases of both sides, and squares of coordinates in them.

    Attributes:
      vectors: the eigenvectors of both sides, in columns, see `gradtx.matrices.sides`.
      ranks: the numbers of eigenvalues that were not 0 when they were computed, `(n, 2)`, int32; 0
        for the first bases, before there are eigenvalues.
      squares: arrays `(n, rows, columns)`, `(n, rows, 1)` or `(n, 1, columns)` of real numbers, not
        negative, that belong to eigenvectors and stay with them.
    """

    vectors: tuple[Array, Array]
    ranks: Array
    squares: tuple[Array, ...]


def first_bases(n: int, sides: Sequence[int], dtype: jnp.dtype) -> tuple[Array, Array, Array]:
    """Returns the bases of both sides before the first step, and their ranks.

    Args:
      n: the number of matrices.
      sides: the sizes of the bases, 0 for a side without one.
      dtype: the dtype.
    """
    left, right = sides
    ranks = jnp.zeros((n, 2), jnp.int32)
    return identities(n, left, dtype), identities(n, right, dtype), ranks


def next_bases(moments: tuple[Array, Array], old: Bases, method: BasisMethod) -> Bases:
    """Computes the eigenbases of both sides. Derivatives treat them as constants.

    Args:
      moments: the second moments of both sides, positive semi-definite.
      old: the last bases.
      method: "qr" for `tracked_eigenbases`, "eigh" for `eigenbases`.
    """
    found, squares = [], list(old.squares)
    for i, (axis, a, basis) in enumerate(zip(AXES, moments, old.vectors, strict=True)):
        rank = old.ranks[:, i]
        if basis.shape[1] == 0:
            found.append(Eigenbases(basis, rank, rank))
            continue
        a = lax.stop_gradient(a)
        new = eigenbases(a) if method == "eigh" else tracked_eigenbases(a, basis, rank)
        for k, x in enumerate(squares):
            if x.shape[axis] == basis.shape[1]:
                squares[k] = jnp.take_along_axis(x, jnp.expand_dims(new.order, 3 - axis), axis)
        found.append(new)
    left, right = found
    ranks = jnp.stack([left.rank, right.rank], 1)
    return Bases((left.vectors, right.vectors), ranks, tuple(squares))


def without_choice(squares: Array, ranks: Array, vectors: tuple[Array, Array]) -> Array:
    """Replaces squares in null spaces, whose bases are arbitrary, by their means.

    So what is computed from them does not depend on the choice of the basis. Coordinates in a null
    space may be nothing but rounding errors. So that their quotients are not large, the square of
    64 rounding errors of the matrix is added there.

    Args:
      squares: the squares of coordinates, or their averages, as in `Bases`.
      ranks: the ranks of both sides, `(n, 2)`.
      vectors: the bases of both sides.
    """
    eps = float(jnp.finfo(squares.dtype).eps)
    least = (64 * eps) ** 2 * jnp.sum(squares, AXES, keepdims=True)
    for i, (axis, basis) in enumerate(zip(AXES, vectors, strict=True)):
        if basis.shape[1] == 0 or squares.shape[axis] != basis.shape[1]:
            continue
        null = jnp.arange(squares.shape[axis]) >= ranks[:, i, None]
        inside = jnp.expand_dims(null, 3 - axis)
        many = jnp.maximum(jnp.sum(inside, axis, keepdims=True), 1).astype(squares.dtype)
        mean = jnp.sum(jnp.where(inside, squares, 0), axis, keepdims=True) / many
        squares = jnp.where(inside, mean + least, squares)
    return squares
