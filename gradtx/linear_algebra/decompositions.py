"""Decompositions of stacks of matrices that are safe on CPUs.

In JAX before 0.12, the CPU's kernels of `eigh`, `qr` and `triangular_solve` for a batch of matrices
divide it over the threads that also run the program. If a program has several of them that do not
depend on each other, all threads may come to wait for each other, for ever: on two cores, a program
with six of them stops in most runs. `svd` was not seen to. So CPUs decompose one matrix after
another here.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import Array

P = ParamSpec("P")
R = TypeVar("R")

IN_TURN = jax.__version_info__ < (0, 12)


def _in_turn(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function of stacks of matrices, which CPUs then call for one after another.

    Args:
      function: a function of arrays `[..., rows, columns]` with the same leading axes. Its results
        are arrays, and those for a matrix do not depend on the others.
    """
    if not IN_TURN:
        return function
    one = jax.custom_batching.sequential_vmap(function)

    @functools.wraps(function)
    def call(*stacks: P.args, **kwargs: P.kwargs) -> R:
        each = one
        for _ in range(getattr(stacks[0], "ndim", 2) - 2):
            each = jax.vmap(each)
        return lax.platform_dependent(*stacks, cpu=each, default=function)

    return call


@_in_turn
def eigh(a: Array) -> tuple[Array, Array]:
    """Computes the eigenvalues, ascending, and the eigenvectors of symmetric matrices.

    Args:
      a: symmetric (or Hermitian) matrices, `[..., n, n]`, of which the lower triangle is used.

    Returns:
      The eigenvalues, `[..., n]`, and the eigenvectors as columns, `[..., n, n]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.linear_algebra.decompositions import eigh
      >>> print(eigh(jnp.diag(jnp.array([4.0, 1.0])))[0])
      [1. 4.]
    """
    values, vectors = jnp.linalg.eigh(a, symmetrize_input=False)
    return values, vectors


@_in_turn
def qr(x: Array) -> tuple[Array, Array]:
    """Computes the reduced decomposition `x = q @ r`, with an upper triangular `r`.

    Args:
      x: matrices `[..., rows, columns]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.linear_algebra.decompositions import qr
      >>> print(jnp.abs(qr(jnp.array([[3.0], [4.0]]))[1]))
      [[5.]]
    """
    q, r = jnp.linalg.qr(x)
    return q, r


@_in_turn
def triangular_factor(x: Array) -> Array:
    """Computes `r` of `x = q @ r` alone, which is faster than `qr`.

    Args:
      x: matrices `[..., rows, columns]`.
    """
    return jnp.linalg.qr(x, mode="r")


def solve_adjoint(q: Array, x: Array) -> Array:
    """Computes `inv(q.H) @ x` for upper triangular matrices. It can be differentiated.

    Args:
      q: upper triangular matrices, `[..., n, n]`.
      x: matrices `[..., n, columns]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.linear_algebra.decompositions import solve_adjoint
      >>> print(solve_adjoint(jnp.array([[2.0, 1.0], [0.0, 1.0]]), jnp.array([[2.0], [2.0]])))
      [[1.]
       [1.]]
    """

    def product(y: Array) -> Array:
        return jnp.matmul(jnp.triu(q).mT.conj(), y, precision=lax.Precision.HIGHEST)

    # What works on one matrix after another cannot be differentiated itself.
    return lax.custom_linear_solve(
        product, x, lambda _, b: _adjoint_solved(q, b), lambda _, b: _conjugate_solved(q, b)
    )


@_in_turn
def _adjoint_solved(q: Array, x: Array) -> Array:
    return lax.linalg.triangular_solve(q, x, left_side=True, transpose_a=True, conjugate_a=True)


@_in_turn
def _conjugate_solved(q: Array, x: Array) -> Array:
    """Returns `inv(conj(q)) @ x`, which solves the transposed equations of `solve_adjoint`."""
    return lax.linalg.triangular_solve(q.conj(), x, left_side=True)
