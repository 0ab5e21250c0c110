"""Inverse roots of stacks of positive semi-definite matrices."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import Array, Scalar
from gradtx.linear_algebra.decompositions import eigh
from gradtx.linear_algebra.eigenbases import rounding
from gradtx.linear_algebra.roots import matrix_inverse_pth_root

RootMethod = Literal["eigh", "newton"]


def inverse_roots(a: Array, p: Scalar, eps: Scalar, method: RootMethod = "eigh") -> Array:
    """Computes `(A + eps * I)**(-1/p)` for each matrix of a stack.

    With the eigendecomposition `A = V @ diag(w) @ V.H` it is `V @ diag((w + eps)**(-1/p)) @ V.H`.
    Eigenvalues below the rounding error of the largest cannot be told from 0, and are raised to it,
    `4 * sqrt(n)` units in the last place, so that the root in the null space is the same whatever
    algorithm computes it. The root of zeros with an `eps` of 0 is 0.

    Args:
      a: symmetric (or Hermitian) positive semi-definite matrices, `[n, size, size]`, in float32 or
        wider.
      p: the order of the root, a positive number; for "newton" a Python integer.
      eps: added to the diagonal.
      method: "eigh", or "newton" for the coupled Newton iteration of `matrix_inverse_pth_root`,
        which needs matrix products only. Default: "eigh".

    Source: Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization",
    arXiv:1802.09568; Newton's method: Anil et al., "Scalable Second Order Optimization for Deep
    Learning", arXiv:2002.09018.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.linear_algebra.inverse_roots import inverse_roots
      >>> print(inverse_roots(jnp.diag(jnp.array([1.0, 16.0]))[None], 4, 0.0)[0].round(4))
      [[1.  0. ]
       [0.  0.5]]
    """
    n, real = a.shape[-1], jnp.finfo(a.dtype).dtype
    least = rounding(n, real)
    size = jnp.max(jnp.abs(a), (1, 2), keepdims=True, initial=0)
    # Some algorithms fail for extreme elements. The reciprocal must be a normal number as well.
    top = float(jnp.finfo(real).max) ** 0.75
    scale = jnp.where(size > 0, jnp.clip(size, 1 / top, top), 1)
    unit, shift = a / scale.astype(a.dtype), jnp.asarray(eps, real) / scale
    if method == "newton":
        shifted = unit + shift.astype(a.dtype) * jnp.eye(n, dtype=a.dtype)
        root = jax.vmap(lambda x: _by_newton(x, p, least))(shifted)
    else:
        values, vectors = eigh(unit)
        largest = jnp.max(values, -1, keepdims=True, initial=0)
        raised = jnp.maximum(values, least * largest) + shift[:, 0]
        power = jnp.where(raised > 0, jnp.where(raised > 0, raised, 1) ** (-1 / p), 0)
        root = jnp.matmul(
            vectors * power[:, None, :].astype(a.dtype), vectors.mT.conj(),
            precision=lax.Precision.HIGHEST,
        )  # fmt: skip
    root = root * (scale ** (-1 / p)).astype(a.dtype)
    return jnp.where((size > 0) | (shift > 0), root, 0)


def _by_newton(a: Array, p: Scalar, ridge: float) -> Array:
    if not jnp.iscomplexobj(a):
        return matrix_inverse_pth_root(a, p, ridge_epsilon=ridge, error_tolerance=ridge)[0]
    # A complex number is a real matrix of two rows, and so are matrices of them.
    n, re, im = len(a), a.real, a.imag
    root = _by_newton(jnp.block([[re, -im], [im, re]]), p, ridge)
    return lax.complex(root[:n, :n], root[n:, :n])
