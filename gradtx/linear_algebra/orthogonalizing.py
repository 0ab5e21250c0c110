"""Orthogonalization: matrices with the same singular vectors, whose singular values are near 1."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx._arguments import checked, described
from gradtx.engine.base import Array, Scalar
from gradtx.engine.numerics import abs_sq, compute_dtype, default_float, plus, times, widen
from gradtx.linear_algebra.polynomials import polar_express
from gradtx.tree.norms import safe_sqrt

Preconditioning = Literal["frobenius", "spectral", "schatten", "aol"]
Form = Literal["direct", "gram", "svd"]
Coefficients = ArrayLike | Sequence[Scalar] | Sequence[Sequence[Scalar]]
"""Three coefficients of a polynomial, or three for each step."""
Named = Literal["standard", "dion", "polar_express"]

Matrices = tuple[Array, Array, Array]
Row = Array | np.ndarray
"""The three coefficients of one step."""

COEFFICIENTS = {
    # Jordan et al.: the steepest slope at 0, singular values end between 0.7 and 1.2
    "standard": (3.4445, -4.7750, 2.0315),
    # from the code of Ahn et al., arXiv:2504.05295: one polynomial for each of five steps, listed
    # coefficient by coefficient
    "dion": tuple(
        zip(
            (4.0848, 3.9505, 3.7418, 2.8769, 2.8366),
            (-6.8946, -6.3029, -5.5913, -3.1427, -3.0525),
            (2.9270, 2.6377, 2.3037, 1.2046, 1.2012),
            strict=True,
        )
    ),
}


@checked
def orthogonalize(
    matrices: ArrayLike,
    coefficients: Coefficients | Named = "standard",
    steps: int = 5,
    *,
    form: Form = "direct",
    preconditioning: Preconditioning = "frobenius",
    eps: Scalar = 1e-8,
    dtype: DTypeLike | None = None,
) -> Array:
    """Returns `u @ v.H` for matrices with the singular value decomposition `u @ s @ v.H`, nearly.

    `x = g / norm(g)`, and then `x = c0*x + c1*(x @ x.H) @ x + c2*(x @ x.H) @ (x @ x.H) @ x`,
    `steps` times. The singular values move towards 1, and the singular vectors stay. Tall matrices
    are transposed before and after. A matrix of zeros stays zero.

    Args:
      matrices: one matrix `(rows, columns)`, or a stack of them, `(..., rows, columns)`.
      coefficients: the three coefficients of the polynomial, or a tuple of three for each step, or
        a name: "standard" (Jordan et al.: singular values of at least 0.003 of the norm end between
        0.7 and 1.2 after 5 steps), "dion" (the polynomials in the code of arXiv:2504.05295), or
        "polar_express" (the best polynomials for `steps` steps, see `polar_express`). Default:
        "standard".
      steps: the number of steps, unless the coefficients are given for each. Default: 5.
      form: "direct", the equation above; "gram", in which matrices with more than 3/2 times as many
        columns as rows are multiplied twice only, and all other products are of square matrices of
        the shorter side (see below); "svd", the exact result by a singular value decomposition,
        without `coefficients`, `steps` and `preconditioning`, in which singular values below the
        rounding errors stay 0. Default: "direct".
      preconditioning: the norm by which matrices are divided first: "frobenius", "spectral",
        "schatten" (the Schatten 4-norm, arXiv:2506.10935) or "aol" (each row by the root of a row
        sum of `abs(g @ g.H)`, arXiv:2512.04632). Default: "frobenius".
      eps: added to the Frobenius and the spectral norm. Default: 1e-8.
      dtype: the dtype of the matrix products. Default: that of `matrices`.

    The Gram form computes `a = x @ x.H; q = 1`, and in each step `p = c0 + c1*a + c2*a@a;
    q = p @ q; a = p @ a @ p`, and at the end `q @ x`. In half precision, or if
    `jax.default_matmul_precision` is reduced, it starts again from `x = q @ x` after two steps:
    rounding errors in `a`, relative to its largest eigenvalue, would grow beyond its small ones.
    Otherwise its products have the highest precision.

    Returns:
      The matrices, in the shape and the dtype of `matrices`.

    Raises:
      ValueError: `matrices` has less than two axes; `coefficients`, `form` or `preconditioning` is
        unknown.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024);
    Amsel et al., "The Polar Express", arXiv:2505.16932; Dao AI Lab, "Gram Newton-Schulz" (2026);
    Higham, "Functions of Matrices", chapter 8.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> g = jnp.array([[3.0, 0.0, 0.0], [0.0, -0.1, 0.0]])
      >>> print(gradtx.orthogonalize(g, "polar_express", steps=7).round(3) + 0.0)
      [[ 1.  0.  0.]
       [ 0. -1.  0.]]
    """
    g = jnp.asarray(matrices)
    if g.ndim < 2:
        raise ValueError(f"orthogonalize: needs matrices, got the shape {g.shape}")
    if not jnp.issubdtype(g.dtype, jnp.inexact):
        g = g.astype(default_float())
    table = coefficients_of(coefficients, steps, "orthogonalize")
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    stack = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]).astype(
        g.dtype if dtype is None else dtype
    )
    stack = stack.astype(g.dtype if dtype is None else dtype)
    found = orthogonalized(stack, table, steps, form, preconditioning, eps)
    found = found.reshape(x.shape).astype(g.dtype)
    return found.mT if tall else found


def coefficients_of(given: Coefficients | Named, steps: int, name: str) -> Coefficients:
    """Returns coefficients, for their name or as they are.

    Args:
      given: the coefficients or the name.
      steps: the number of steps, for "polar_express".
      name: the name of the calling function, for errors.

    Raises:
      ValueError: the name is unknown, or there are not three coefficients for each step.
    """
    if not isinstance(given, str):
        shape = jnp.shape(values_of(given))
        if shape[-1:] != (3,) or len(shape) > 2:
            told = "coefficients must be three numbers, or three for each step"
            raise ValueError(f"{name}: {told}, got {described(given)}")
        return given
    if given == "polar_express":
        return polar_express(steps) if steps else np.zeros((0, 3))
    if given not in COEFFICIENTS:
        known = ", ".join(map(repr, [*COEFFICIENTS, "polar_express"]))
        raise ValueError(f"{name}: coefficients must be one of {known}, got {given!r}")
    return COEFFICIENTS[given]


def values_of(coefficients: Coefficients) -> np.ndarray | Array:
    """Returns coefficients as an array; plain numbers as one of NumPy, without initializing JAX."""
    plain = all(isinstance(x, (int, float)) for x in jax.tree.leaves(coefficients))
    return np.asarray(coefficients, float) if plain else jnp.asarray(coefficients)


def orthogonalized(
    g: Array,
    coefficients: Coefficients,
    steps: int,
    form: Form,
    preconditioning: Preconditioning,
    eps: Scalar,
) -> Array:
    """Moves the singular values of matrices towards 1; see `orthogonalize`.

    The products are computed in the dtype of `g`, and in JAX's current matmul precision: inside of
    `jax.default_matmul_precision("bfloat16")` an accelerator computes them at full speed, which is
    accurate enough for five steps of Muon.

    Args:
      g: matrices `(n, rows, columns)`.
      coefficients: `(3,)`, or `(steps, 3)` for one polynomial at each step.
      steps: the number of steps, if one polynomial is used for all.
      form: "direct", "gram" or "svd".
      preconditioning: "frobenius", "spectral", "schatten" or "aol".
      eps: added to the Frobenius and the spectral norm.
    """
    if form == "svd":
        return _polar(g)
    if g.shape[1] > g.shape[2]:
        found = orthogonalized(g.mT, coefficients, steps, form, preconditioning, eps)
        return found.mT
    # Known coefficients stay NumPy's, so that each step has constants.
    table = values_of(coefficients).astype(jnp.finfo(compute_dtype(g.dtype)).dtype)
    each = [table] * steps if table.ndim == 1 else [*table]
    rows, columns = g.shape[1:]
    by_gram = form == "gram" and 2 * columns > 3 * rows
    reduced = jnp.finfo(g.dtype).bits < 32 or _products_are_reduced()
    precision = lax.Precision.HIGHEST if by_gram and not reduced else None

    x, a = _within_range(g), None
    if preconditioning in _NORMS:
        x = _divided(x, _NORMS[preconditioning](x, eps))
    else:
        a = _gram(x, precision)
        norm = _NORMS_OF_GRAM[preconditioning](a)
        x, a = _divided(x, norm), _divided(_divided(a, norm), norm.mT)
    if not by_gram:
        return _direct(x, each, a)
    cuts = [0, 2, len(each)] if reduced and len(each) > 2 else [0, len(each)]
    for first, last in itertools.pairwise(cuts):
        x, a = _by_gram(x, each[first:last], a, precision), None
    return x


def _polar(g: Array) -> Array:
    wide = widen(g)
    size = jnp.max(jnp.abs(wide), (1, 2), keepdims=True, initial=0)
    u, s, vh = jnp.linalg.svd(_divided(wide, size), full_matrices=False)
    # the vectors of singular value 0 are not unique, and are left out
    nonzero = s > jnp.finfo(s.dtype).eps * max(g.shape) * s[:, :1]
    u = jnp.where(nonzero[:, None, :], u, 0)
    return _product(u, vh, lax.Precision.HIGHEST).astype(g.dtype)


def _direct(x: Array, each: Sequence[Row], a: Array | None) -> Array:
    """Returns `x` after some steps; `a` is `x @ x.H`, if it is known."""

    def apply(x: Array, a: Array, c: Row) -> Array:
        return _product(_polynomial(c, a, _product(a, a)), x)

    # Traced once, and several calls in the program: a loop copies x at each step, at least on CPUs.
    @jax.jit
    def step(x: Array, c: Row) -> Array:
        return apply(x, _gram(x), c)

    if a is not None and each:
        x, each = apply(x, a, each[0]), each[1:]
    for c in each:
        x = step(x, c)
    return x


def _by_gram(x: Array, each: Sequence[Row], a: Array | None, precision: lax.PrecisionLike) -> Array:
    """Returns `x` after some steps in the Gram form; `a` is `x @ x.H`, if it is known."""

    def product(a: Array, b: Array) -> Array:
        return _product(a, b, precision)

    def polynomial(c: Row, a: Array) -> Array:
        return _polynomial(c, a, product(a, a))

    @jax.jit
    def step(a: Array, p: Array, q: Array, c: Row) -> Matrices:
        a = product(product(p, a), p)
        p = polynomial(c, a)
        return a, p, product(p, q)

    if not each:
        return x
    a = _gram(x, precision) if a is None else a
    p = q = polynomial(each[0], a)
    for c in each[1:]:
        a, p, q = step(a, p, q, c)
    return product(q, x)


MATMUL_PRECISION = "jax_default_matmul_precision"


def _products_are_reduced() -> bool:
    """Returns whether products are computed in fewer bits by the user's choice."""
    return getattr(jax.config, MATMUL_PRECISION) not in (None, "float32", "highest")


def _polynomial(c: Row, a: Array, squared: Array) -> Array:
    """Returns `c0 + c1*a + c2*squared`, summed in float32 or wider, in the dtype of `a`."""
    # c0 is added to the diagonal of the smaller matrix, which saves a pass over x.
    identity = jnp.asarray(np.eye(a.shape[1], dtype=compute_dtype(a.dtype))[None])
    found = lax.add(times(c[1], widen(a)), times(c[2], widen(squared)))
    return (found + times(c[0], identity)).astype(a.dtype)


def _product(a: Array, b: Array, precision: lax.PrecisionLike = None) -> Array:
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))), precision)


def _gram(x: Array, precision: lax.PrecisionLike = None) -> Array:
    conjugate = lax.conj(x) if jnp.iscomplexobj(x) else x
    return lax.dot_general(x, conjugate, (((2,), (2,)), ((0,), (0,))), precision)


def _within_range(g: Array) -> Array:
    """Divides matrices whose squares may overflow by their largest magnitude."""
    largest = lax.expand_dims(lax.reduce_max(lax.abs(g), (1, 2)), (1, 2))
    limit = float(jnp.finfo(g.dtype).max) ** 0.25 / 100  # fourth powers, for one norm
    large = lax.gt(largest, lax.full_like(largest, limit))
    return _quotient(g, lax.select(large, largest, lax.full_like(largest, 1)))


def _frobenius_norm(g: Array, eps: Scalar) -> Array:
    squares = lax.reduce_sum(abs_sq(widen(g)), (1, 2))
    return plus(lax.expand_dims(safe_sqrt(squares), (1, 2)), eps)


def _spectral_norm(g: Array, eps: Scalar) -> Array:
    return jnp.linalg.norm(widen(g), 2, (1, 2), keepdims=True) + eps


def _schatten_norm(a: Array) -> Array:
    # the 4-norm of the singular values is the root of the Frobenius norm of g @ g.H
    return safe_sqrt(safe_sqrt(jnp.sum(abs_sq(widen(a)), (1, 2), keepdims=True)))


def _row_sums(a: Array) -> Array:
    # "almost orthogonal": row sums bound the singular values of g, by Gershgorin's theorem
    return safe_sqrt(jnp.sum(jnp.abs(widen(a)), 2, keepdims=True))


def _divided(g: Array, norm: Array) -> Array:
    # divided by infinity, zeros stay zero
    zero = lax.eq(norm, lax.full_like(norm, 0))
    return _quotient(g, lax.select(zero, lax.full_like(norm, np.inf), norm))


def _quotient(g: Array, norm: Array) -> Array:
    """Returns `g / norm` in the dtype of `g`, computed in the wider one of both."""
    dtype = jnp.promote_types(g.dtype, norm.dtype)
    whole = lax.broadcast_in_dim(norm.astype(dtype), g.shape, (0, 1, 2))
    return lax.div(g.astype(dtype), whole).astype(g.dtype)


_NORMS = {"frobenius": _frobenius_norm, "spectral": _spectral_norm}
_NORMS_OF_GRAM = {"schatten": _schatten_norm, "aol": _row_sums}
"""Norms that are computed from `g @ g.H`, which the first step needs too."""
