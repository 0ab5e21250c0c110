"""Inverse roots of positive matrices without an eigendecomposition."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar
from gradtx.linear_algebra.checks import narrow_dtype, wide_square_matrix
from gradtx.linear_algebra.eigen import power_iteration


def matrix_inverse_pth_root(
    matrix: ArrayLike,
    p: Scalar,
    num_iters: Scalar = 100,
    ridge_epsilon: Scalar = 1e-6,
    error_tolerance: Scalar = 1e-6,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> tuple[Array, Array]:
    r"""Computes `A**(-1/p)` for a symmetric positive semi-definite matrix.

    With `B = A + ridge_epsilon * largest_eigenvalue * I`, Newton's method for the inverse root,
    coupled with the matrix `M = X**p @ B`, which converges to `I`::

        z = (1 + p) / (2 * largest_eigenvalue);   X = z**(1/p) * I;   M = z * B

    and in each iteration::

        T = ((1 + p) * I - M) / p;   X = X @ T;   M = T**p @ M

    The eigenvalues of `M` start in `(0, (1+p)/2]` and tend to 1. Small ones grow by a factor of
    `((1+p)/p)**p`, 2 to 2.72, in each iteration; near 1 the convergence is quadratic. All products
    are of matrices that commute, which keeps rounding errors from growing. The iteration ends when
    the error, the Frobenius norm of `M - I`, is at most `error_tolerance`, or falls no further
    because of rounding. In float32 expect a relative error of about `1e-7` times the condition
    number of `B`, divided by `p`.

    Half precision and integers are computed in float32. A matrix of zeros is taken as
    `ridge_epsilon * I`. Use `jax.vmap` for a batch of matrices.

    Args:
      matrix: a symmetric positive semi-definite matrix, `[n, n]`.
      p: a positive integer; may be traced.
      num_iters: the largest number of iterations. Default: 100.
      ridge_epsilon: added to the diagonal, in units of the largest eigenvalue. Default: 1e-6.
      error_tolerance: the error to stop at. Default: 1e-6.
      precision: the precision of matrix products on accelerators. Default: the highest.

    Returns:
      The root, in the dtype of `matrix`, and the error, a scalar: no eigenvalue of `M` is farther
      from 1 than that.

    Raises:
      ValueError: `matrix` is not square, or `p` is not a positive integer.

    Source: Guo and Higham, "A Schur-Newton Method for the Matrix pth Root and its Inverse" (SIAM
    J. Matrix Anal. Appl. 28, 2006); Higham, "Functions of Matrices", equation 7.18; used for
    preconditioners by Anil et al., "Scalable Second Order Optimization for Deep Learning",
    arXiv:2002.09018.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> root, error = gradtx.matrix_inverse_pth_root(jnp.diag(jnp.array([1.0, 8.0, 27.0])), 3)
      >>> print(jnp.diag(root).round(4))
      [1.     0.5    0.3333]
    """
    name = "matrix_inverse_pth_root"
    a = wide_square_matrix(name, matrix)
    if not isinstance(p, jax.Array) and not (p == int(p) and p >= 1):
        raise ValueError(f"{name}: p is {p}, and must be a positive integer")
    if a.size == 0:
        return jnp.asarray(matrix, narrow_dtype(matrix)), jnp.zeros((), a.dtype)
    if isinstance(p, jax.Array):
        solve = functools.partial(_newton, p=p)
    else:
        solve = functools.partial(_newton_for_number, p=int(p))
    root, error = solve(a, num_iters, ridge_epsilon, error_tolerance, precision=precision)
    return root.astype(narrow_dtype(matrix)), error


def _newton(
    a: Array,
    num_iters: Scalar,
    ridge_epsilon: Scalar,
    error_tolerance: Scalar,
    *,
    p: Scalar,
    precision: lax.PrecisionLike,
) -> tuple[Array, Array]:
    identity = jnp.eye(len(a), dtype=a.dtype)
    scale, _ = power_iteration(a, error_tolerance=error_tolerance, precision=precision)
    scale = jnp.where(scale > 0, scale, 1).astype(a.dtype)

    def multiply(x: Array, y: Array) -> Array:
        return jnp.matmul(x, y, precision=precision)

    def iterate(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        step, x, m, error, _, _ = carry
        t = (identity * (1 + p) - m) / p
        new_m = multiply(_power(t, p, multiply), m)
        new_error = jnp.linalg.norm(new_m - identity)
        return step + 1, multiply(x, t), new_m, new_error, x, error

    def unfinished(carry: tuple[Array, ...]) -> Array:
        step, _, _, error, _, last_error = carry
        # No eigenvalue's error grows. While some are tiny, the sum hardly falls at all; once all
        # are near 1 it falls quadratically, and what does not halve is rounding.
        falling = jnp.where(last_error < 0.1, error < 0.5 * last_error, error < 1.1 * last_error)
        return (step < num_iters) & (error > error_tolerance) & falling

    z = (1 + p) / (2 * scale)
    x = identity * (z ** (1 / p)).astype(a.dtype)
    m = (a + ridge_epsilon * scale * identity).astype(a.dtype) * z.astype(a.dtype)
    error = jnp.linalg.norm(m - identity)
    worst = jnp.full_like(error, jnp.inf)
    start = (jnp.zeros((), jnp.int32), x, m, error, x, worst)
    _, x, _, error, last_x, last_error = lax.while_loop(unfinished, iterate, start)
    better = error < last_error
    return jnp.where(better, x, last_x), jnp.where(better, error, last_error)


_newton_for_number = jax.jit(_newton, static_argnames=("p", "precision"))


def _power(t: Array, p: Scalar, multiply: Callable[[Array, Array], Array]) -> Array:
    """Returns `t**p` by squaring: unrolled for a number, in a loop for a traced `p`."""
    if isinstance(p, int):
        result, square, rest = None, t, p
        while rest:
            if rest % 2:
                result = square if result is None else multiply(result, square)
            rest //= 2
            square = multiply(square, square) if rest else square
        assert result is not None  # p is at least 1
        return result

    def fold(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rest, square, result = carry
        result = lax.cond(rest % 2 == 1, lambda: multiply(result, square), lambda: result)
        return rest // 2, multiply(square, square), result

    start = (jnp.asarray(p, jnp.int32), t, jnp.eye(len(t), dtype=t.dtype))
    return lax.while_loop(lambda carry: carry[0] > 0, fold, start)[2]
