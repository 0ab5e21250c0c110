"""Least squares in which no coefficient may be negative."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.engine.numerics import default_float, widen
from gradtx.linear_algebra.checks import narrow_dtype, wide_matrix


def nnls(
    A: ArrayLike, b: ArrayLike, iters: int, unroll: int | bool = 1, L: Scalar | None = None
) -> Array:
    r"""Solves `min |A x - b|^2` over `x >= 0`, by accelerated projected gradients.

    From `x = y = 0` and `t = 1`, it repeats::

        x_new = max(0, y - A.T @ (A @ y - b) / L);   t_new = (1 + sqrt(1 + 4 * t**2)) / 2
        y = x_new + (t - 1) / t_new * (x_new - x)

    where the momentum is restarted, `t = 1`, whenever it points uphill,
    `<y - x_new, x_new - x> > 0`. After `k` iterations the value is at most `2 L |x*|^2 / (k+1)^2`
    above the minimum as long as there is no restart; restarts give geometric convergence where `A`
    determines the solution. Half precision and integers are computed in float32. Each iteration
    costs `N^2 K` multiplications, as `A^T A` is formed once.

    Args:
      A: the matrix, `[M, N]`.
      b: the target for `A x`, `[M]`, or `[M, K]` for several at once.
      iters: the number of iterations; with 0 the result is zero.
      unroll: the number of iterations to unroll in the compiled loop, as in `jax.lax.scan`.
        Default: 1.
      L: an upper bound on the largest eigenvalue of `A^T A`; a smaller number may diverge.
        Default: one that is at most `N**(1/8)` times too large.

    Returns:
      The solution, `[N]` or `[N, K]`, in the dtype that `A` and `b` promote to.

    Raises:
      ValueError: the shapes do not fit, or `iters` is negative.

    Source: Polyak, "Projected gradient method for non-negative least square" (Contemporary
    Mathematics 636, 2015); the restarts are those of O'Donoghue and Candès, "Adaptive Restart for
    Accelerated Gradient Schemes", arXiv:1204.3982.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> A = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> print(gradtx.nnls(A, jnp.array([2.0, 1.0]), iters=100))
      [1.5 0. ]
    """
    a, target = wide_matrix("nnls", A), jnp.asarray(b)
    if target.ndim not in (1, 2) or target.shape[0] != a.shape[0]:
        raise ValueError(
            f"nnls: A has the shape {a.shape}, and b must have the shape ({a.shape[0]},) or "
            f"({a.shape[0]}, K), got {target.shape}"
        )
    if iters < 0:
        raise ValueError(f"nnls: iters is {iters}, and must not be negative")
    if not jnp.issubdtype(target.dtype, jnp.inexact):
        target = target.astype(default_float())
    x = _projected_gradients(a, widen(target), L, iters=iters, unroll=unroll)
    return x.astype(narrow_dtype(A, b))


@functools.partial(jax.jit, static_argnames=("iters", "unroll"))
def _projected_gradients(
    a: Array, target: Array, L: Scalar | None, *, iters: int, unroll: int | bool
) -> Array:
    gram = jnp.matmul(a.T, a, precision=lax.Precision.HIGHEST)
    pulled = jnp.matmul(a.T, target, precision=lax.Precision.HIGHEST)
    dtype = pulled.dtype
    if L is None:
        L = _bound_on_largest_eigenvalue(gram)
    L = lax.stop_gradient(jnp.asarray(L, dtype))  # the solution does not depend on it
    step_size = 1 / jnp.where(L > 0, L, 1)  # L is 0 for A = 0 only, where any x is a solution

    def iterate(carry: tuple[Array, Array, Array], _: None) -> tuple[PyTree, None]:
        x, y, t = carry
        slope = jnp.matmul(gram, y, precision=lax.Precision.HIGHEST) - pulled
        x_new = jnp.maximum(y - step_size * slope, 0)
        uphill = jnp.sum((y - x_new) * (x_new - x), axis=0) > 0
        t = jnp.where(uphill, 1, t)
        t_new = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        y = x_new + (t - 1) / t_new * (x_new - x)
        return (x_new, y, t_new), None

    x = jnp.zeros_like(pulled)
    start = (x, x, jnp.ones(pulled.shape[1:], dtype))
    (x, _, _), _ = lax.scan(iterate, start, length=iters, unroll=unroll)
    return x


def _bound_on_largest_eigenvalue(gram: Array) -> Array:
    """Returns `|G**4|**(1/4)`, the 8-norm of the eigenvalues, which needs products only."""

    def normalized(h: Array) -> tuple[Array, Array]:
        norm = jnp.linalg.norm(h)
        norm = jnp.where(norm > 0, norm, 1)
        return h / norm, norm

    h, bound = normalized(gram)
    for power in (2, 4):
        h, norm = normalized(jnp.matmul(h, h, precision=lax.Precision.HIGHEST))
        bound = bound * norm ** (1 / power)
    return 1.00001 * bound  # rounding must not leave it below the eigenvalue
