"""Decompositions of stacks of matrices that are safe on CPUs.

In JAX before 0.12, the CPU's kernels of `eigh`, `qr` and `triangular_solve` for a batch of matrices
divide it over the threads that also run the program. If a program has several of them that do not
depend on each other, all threads may come to wait for each other, for ever: on two cores, a program
with six of them stops in most runs. `svd` was not seen to. So CPUs decompose one matrix after
another here.
"""

import functools
import math
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
    plain: Callable[..., R] = function
    one = jax.custom_batching.sequential_vmap(plain)

    def in_turn(*stacks: Array) -> R:
        each = one
        for _ in range(stacks[0].ndim - 2):
            each = jax.vmap(each)
        return each(*stacks)

    def mapped(*stacks: Array) -> R:
        batch = stacks[0].shape[:-2]
        flat = [x.reshape(math.prod(batch), *x.shape[-2:]) for x in stacks]
        found = lax.map(lambda matrices: plain(*matrices), flat)
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found)

    # JAX has no derivative in reverse mode of `sequential_vmap`.
    on_cpus = jax.custom_jvp(in_turn)
    on_cpus.defjvp(lambda stacks, tangents: jax.jvp(mapped, stacks, tangents))

    @functools.wraps(function)
    def call(*stacks: P.args, **kwargs: P.kwargs) -> R:
        return lax.platform_dependent(*map(jnp.asarray, stacks), cpu=on_cpus, default=plain)

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


@_in_turn
def solve_adjoint(q: Array, x: Array) -> Array:
    """Computes `inv(q.H) @ x` for upper triangular matrices.

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
    return lax.linalg.triangular_solve(q, x, left_side=True, transpose_a=True, conjugate_a=True)
