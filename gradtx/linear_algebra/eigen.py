"""The eigenvalue of largest magnitude, by power iteration."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx import tree
from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.engine.numerics import widen
from gradtx.linear_algebra.checks import narrow_dtype, wide_square_matrix


def power_iteration(
    matrix: ArrayLike | Callable[[PyTree], PyTree],
    *,
    v0: PyTree | None = None,
    num_iters: Scalar = 100,
    error_tolerance: Scalar = 1e-6,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
    key: Array | None = None,
) -> tuple[Array, PyTree]:
    r"""Finds the eigenvalue of largest magnitude and its eigenvector.

    Repeats `v = w / |w|; w = A @ v; eigenvalue = <v, w>` until the residual is small,
    `|w - eigenvalue * v| <= error_tolerance * |eigenvalue|`. For a symmetric (or Hermitian) `A` the
    residual bounds the distance to an eigenvalue of `A`. In each iteration the error
    of the eigenvalue falls by the factor `|lambda_2| / |lambda_1|`, of the two largest magnitudes;
    by its square for symmetric `A`. Where both are equal, as in a pair of complex conjugates, the
    iteration does not converge.

    Sums over half-precision numbers are taken in float32, and so is the eigenvalue. The zero matrix
    has the eigenvalue 0, and any vector is its eigenvector.

    Args:
      matrix: a square matrix, `[n, n]`; or a linear function from a pytree to a pytree of the same
        structure.
      v0: the vector to start from, `[n]`, or the tree if `matrix` is a function. It must not be
        orthogonal to the eigenvector. Default: uniform random numbers in [-1, 1]; a function has
        no default.
      num_iters: the largest number of iterations. Default: 100.
      error_tolerance: the relative residual to stop at. Default: 1e-6.
      precision: the precision of matrix products on accelerators. Default: the highest.
      key: the random key for the first vector. Default: `jax.random.key(0)`.

    Returns:
      The eigenvalue, a scalar, and an eigenvector of norm 1, like `v0` in structure and dtype.

    Raises:
      ValueError: the matrix is not square, `v0` does not fit it, or is missing for a function.

    Source: von Mises and Pollaczek-Geiringer, "Praktische Verfahren der Gleichungsauflösung"
    (ZAMM 9, 1929).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> eigenvalue, v = gradtx.power_iteration(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
      >>> print(f"{eigenvalue:.4f}", jnp.abs(v).round(4))
      3.0000 [0.7071 0.7071]
    """
    if callable(matrix):
        if v0 is None:
            raise ValueError("power_iteration: a function instead of a matrix needs v0")
        v0 = jax.tree.map(lambda x: jnp.asarray(x, narrow_dtype(x)), v0)
        return _iterate(matrix, v0, num_iters, error_tolerance)
    a = wide_square_matrix("power_iteration", matrix)
    if v0 is None:
        v0 = _random_vector(jax.random.key(0) if key is None else key, a)
        dtype = narrow_dtype(matrix)
    else:
        dtype = narrow_dtype(matrix, v0)
    v0 = jnp.asarray(v0, jnp.promote_types(dtype, a.dtype))
    if v0.shape != a.shape[1:]:
        raise ValueError(
            f"power_iteration: v0 has the shape {v0.shape}, and the matrix {a.shape} needs "
            f"{a.shape[1:]}"
        )
    eigenvalue, v = _iterate_matrix(a, v0, num_iters, error_tolerance, precision=precision)
    return eigenvalue, v.astype(dtype)


def _random_vector(key: Array, a: Array) -> Array:
    real = jnp.finfo(a.dtype).dtype
    return jax.random.uniform(key, a.shape[1:], real, -1, 1).astype(a.dtype)


@functools.partial(jax.jit, static_argnames="precision")  # or each call would compile
def _iterate_matrix(
    a: Array, v0: Array, num_iters: Scalar, error_tolerance: Scalar, *, precision: lax.PrecisionLike
) -> tuple[Array, Array]:
    def multiply(x: Array) -> Array:
        return jnp.matmul(a, x, precision=precision)

    return _iterate(multiply, v0, num_iters, error_tolerance)


def _iterate(
    multiply: Callable[[PyTree], PyTree], v0: PyTree, num_iters: Scalar, error_tolerance: Scalar
) -> tuple[Array, PyTree]:
    def normalized(w: PyTree, otherwise: PyTree) -> PyTree:
        # scaled before it is squared: the elements of a small matrix would vanish
        largest = jax.tree.reduce(
            jnp.maximum, jax.tree.map(lambda x: jnp.max(jnp.abs(widen(x))), w)
        )
        # if the product is 0, the vector before is an eigenvector of eigenvalue 0, and is kept
        nonzero = largest > 0
        largest = jnp.where(nonzero, largest, 1)
        scaled = jax.tree.map(lambda x: widen(x) / largest, w)
        norm = jnp.where(nonzero, tree.norm(scaled), 1)
        return jax.tree.map(
            lambda x, y: jnp.where(nonzero, x / norm, y).astype(y.dtype), scaled, otherwise
        )

    def measure(v: PyTree) -> tuple[PyTree, PyTree, Array]:
        w = multiply(v)
        return v, w, jnp.asarray(tree.vdot(v, w))

    def unfinished(carry: tuple[Array, PyTree, PyTree, Array]) -> Array:
        step, v, w, eigenvalue = carry
        unit = jnp.where(eigenvalue == 0, 1, eigenvalue)
        one = eigenvalue / unit
        residual = tree.norm(jax.tree.map(lambda x, y: y / unit - one * x, v, w))
        return (step < num_iters) & (residual > error_tolerance * jnp.abs(one))

    def advance(carry: tuple[Array, PyTree, PyTree, Array]) -> tuple[Array, PyTree, PyTree, Array]:
        step, v, w, _ = carry
        return step + 1, *measure(normalized(w, v))

    start = (jnp.zeros((), jnp.int32), *measure(normalized(v0, v0)))
    _, v, _, eigenvalue = lax.while_loop(unfinished, advance, start)
    return eigenvalue, v
