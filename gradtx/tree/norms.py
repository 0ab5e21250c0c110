"""Euclidean norms that do not overflow before the norm itself does.

The squares of float32 numbers overflow from 1.8e19 on. CPUs sum the squares of small arrays in
float64, where they do not, and those of large arrays only if the sum in float32 overflows.
Accelerators, where float64 is slow and a branch waits for the host, always compute two sums, the
second one for numbers scaled down by a power of two, from one reading of the arrays if the compiler
fuses them. So do CPUs for numbers in float64, if the first sum overflows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx._arguments import MisfitError, axes_within
from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.engine.numerics import abs_sq, default_float, like, times, widen
from gradtx.engine.scalars import total
from gradtx.tree.mapping import numbers_in

Axis = tuple[int, ...] | None
Groups = tuple[tuple[Array, ...], ...]


def global_norm(updates: PyTree) -> Array:
    """Returns the Euclidean norm of all leaves together, as if they were one vector.

    `sqrt(sum(|x|**2))`, a real scalar, float32 or wider. Its gradient at zero is zero. The
    norm of an empty pytree is 0.

    Args:
      updates: a pytree of arrays.

    Raises:
      TypeError: a leaf is no number, such as the random key of a state; the message has its path.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.global_norm([jnp.ones(1, jnp.bfloat16)] * 600))
      24.494898
      >>> print(gradtx.global_norm(jnp.array([3e30, 4e30])))
      5e+30
    """
    leaves = tuple(map(floating, numbers_in("global_norm", updates, "updates")))
    return _compiled((leaves,), None)[0] if leaves else jnp.zeros((), default_float())


def norms(*arrays: ArrayLike, axis: Axis = None) -> tuple[Array, ...]:
    """Returns the Euclidean norm of each of several arrays.

    Args:
      *arrays: real or complex arrays, at least one.
      axis: the axes of the sum, which are kept with length 1. Default: `None`, all axes, of which
        none is kept.

    Returns:
      Real arrays, float32 or wider, whose gradients at zero are zero.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.tree.norms import norms
      >>> print(*norms(jnp.array([3.0, 4.0]), jnp.array([6e25, 8e25])))
      5.0 1e+26
    """
    return _compiled(tuple((floating(x),) for x in arrays), axis)


def root_mean_square(x: ArrayLike) -> Array:
    """Returns `sqrt(mean(|x|**2))`, real, float32 or wider; 0 for an empty array.

    Args:
      x: a real or complex array.
    """
    return norms(x)[0] / max(jnp.size(x), 1) ** 0.5


def floating(x: ArrayLike) -> Array:
    """Returns an array in a floating dtype, float32 or wider.

    Args:
      x: an array or a number.

    Raises:
      TypeError: it is a random key.
    """
    x = widen(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        raise TypeError(f"a random key ({x.dtype}) is not a number")
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(default_float())


@jax.custom_jvp
def safe_sqrt(x: Array | float) -> Array:
    """Returns the square root, with gradient 0 instead of infinity where `x` is 0.

    Args:
      x: a real array, not negative; NaN stays NaN.
    """
    return lax.sqrt(x)


@safe_sqrt.defjvp
def _(primals: tuple[Array | float], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = safe_sqrt(*primals)
    zero = y == 0
    return y, tangents[0] * jnp.where(zero, 0, 0.5 / jnp.where(zero, 1, y))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _norms(groups: Groups, axis: Axis) -> tuple[Array, ...]:
    """Returns one norm for each group of arrays."""
    dtype = jnp.finfo(jnp.result_type(*[x for group in groups for x in group])).dtype
    # With a constant `c`, XLA rewrites `(c*x) * (c*x)` to `(c*c) * (x*x)`, here `0 * inf`.
    small = lax.optimization_barrier(
        jnp.asarray(2.0 ** (3 * int(jnp.finfo(dtype).minexp) // 4), dtype)
    )

    def scaled(factor: Array | None) -> tuple[Array, ...]:
        return tuple(_root(group, factor, axis, dtype) for group in groups)

    def mended(found: tuple[Array, ...], other: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(jnp.where(jnp.isinf(a), b, a) for a, b in zip(found, other, strict=True))

    def overflow(found: tuple[Array, ...]) -> Array:
        return functools.reduce(jnp.logical_or, [jnp.any(jnp.isinf(x)) for x in found])

    def branch() -> tuple[Array, ...]:
        found = scaled(None)
        return lax.cond(overflow(found), lambda: mended(found, scaled(small)), lambda: found)

    def double() -> tuple[Array, ...]:
        return _in_double(groups, axis)

    return lax.platform_dependent(
        cpu=double if dtype == np.float32 else branch,
        default=lambda: mended(scaled(None), scaled(small)),
    )


SMALL = 4096
"""Arrays of at most so many elements are summed in float64 on CPUs.

It takes twice as long as float32, which for such arrays is less than a branch takes: its second sum
is compiled, and run if the program is batched.
"""


def _in_double(groups: Groups, axis: Axis) -> tuple[Array, ...]:
    """Returns the norms of arrays in float32, without overflow of their squares."""

    def squares(x: Array) -> Array:
        return jnp.sum(abs_sq(x), axis, keepdims=axis is not None)

    def double(x: Array) -> Array:
        wide = np.complex128 if jnp.iscomplexobj(x) else np.float64
        return squares(lax.convert_element_type(x, wide))

    def single(x: Array) -> Array:
        return squares(x.astype(jnp.result_type(x, np.float32)))

    def root(parts: list[Array]) -> Array:
        whole = parts[0] if len(parts) == 1 else total(parts)
        return lax.convert_element_type(safe_sqrt(whole), np.float32)

    with jax.enable_x64(True):
        every = [x for group in groups for x in group]
        large = [x for x in every if x.size > SMALL]
        found: list[Array] = [single(x) for x in large]
        if large:
            overflow = functools.reduce(jnp.logical_or, [jnp.any(jnp.isinf(s)) for s in found])
            found = lax.cond(
                overflow,
                lambda: [double(x) for x in large],
                lambda: [lax.convert_element_type(s, np.float64) for s in found],
            )
        sums = iter(found)
        return tuple(
            root([next(sums) if x.size > SMALL else double(x) for x in group]) for group in groups
        )


def _root(group: tuple[Array, ...], factor: Array | None, axis: Axis, dtype: DTypeLike) -> Array:
    def square(x: Array) -> Array:
        x = x.astype(jnp.result_type(x, dtype))
        x = x if factor is None else times(factor, x)
        return jnp.sum(abs_sq(x), axis, keepdims=axis is not None)

    parts = [square(x) for x in group]
    whole = parts[0] if len(parts) == 1 else total(parts)
    root = safe_sqrt(whole)
    return root if factor is None else root / like(factor, whole)


@_norms.defjvp
def _(
    axis: Axis, primals: tuple[Groups], tangents: tuple[Groups]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    found = _norms(*primals, axis)

    def slope(group: tuple[Array, ...], changes: tuple[Array, ...], norm: Array) -> Array:
        zero = norm == 0
        units = [x / jnp.where(zero, 1, norm) for x in group]
        parts = [
            jnp.sum(jnp.real(jnp.conj(u) * dx), axis, keepdims=axis is not None)
            for u, dx in zip(units, changes, strict=True)
        ]
        return jnp.where(zero, 0, total(parts)).astype(norm.dtype)

    return found, tuple(map(slope, *primals, *tangents, found))


# Traced once for each signature, and one program outside of `jit`.
_compiled = jax.jit(_norms, static_argnums=1)


def safe_norm(
    x: ArrayLike,
    min_norm: Scalar,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Array:
    """Returns `max(norm(x), min_norm)`, whose gradient is 0 where the norm is not above `min_norm`.

    Half precision is widened: the norm is float32 or wider, and squares do not overflow.

    Args:
      x: a real or complex array.
      min_norm: the lower bound, not negative. With 0, the gradient at 0 is 0.
      ord: the order of the norm, as for `jax.numpy.linalg.norm`. Default: `None`, the Euclidean
        norm of all elements along `axis`.
      axis: the axis of vectors, or the two axes of matrices. Default: `None`, the norm of the whole
        array.
      keepdims: whether the axes are kept, with length 1. Default: False.

    Raises:
      ValueError: the array has no such axis.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.safe_norm(jnp.array([3.0, 4.0]), 1.0))
      5.0
      >>> print(jax.grad(gradtx.safe_norm)(jnp.zeros(2), 0.0))
      [0. 0.]
    """
    x = floating(x)
    try:
        axes_within(axis, x.ndim)
    except MisfitError as e:
        raise ValueError(f"safe_norm: x {e}") from None
    small = 2.0 ** (int(jnp.finfo(x.dtype).minexp) // 2)
    large = jnp.max(jnp.abs(x), initial=0) * small > 1
    factor = lax.stop_gradient(jnp.where(large, small, 1)).astype(jnp.finfo(x.dtype).dtype)

    def measure(x: Array) -> Array:
        return jnp.linalg.norm(x * factor, ord=ord, axis=axis, keepdims=True) / factor

    # Where the norm may have no gradient, it is not computed from `x` at all.
    least = measure(x) <= min_norm
    norm = jnp.where(least, min_norm, measure(jnp.where(least, 1, x)))
    return norm if keepdims else jnp.squeeze(norm, axis)


def safe_root_mean_squares(x: ArrayLike, min_rms: Scalar) -> Array:
    """Returns `max(sqrt(mean(|x|**2)), min_rms)`, whose gradient is 0 where that is `min_rms`.

    Half precision is widened: the result is float32 or wider, and squares do not overflow.

    Args:
      x: a real or complex array. The mean of an empty array is 0.
      min_rms: the lower bound, not negative. With 0, the gradient at 0 is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.safe_root_mean_squares(jnp.array([1.0, 7.0]), 0.0))
      5.0
    """
    rms = root_mean_square(x)
    return jnp.where(rms <= min_rms, min_rms, rms)


def rescale(x: ArrayLike, factor: Scalar) -> Array:
    """Returns `factor * x`, multiplied in float32 or wider and rounded once to the dtype of `x`.

    Args:
      x: an array.
      factor: a scalar array or a number.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import rescale
      >>> rescale(jnp.array([1.0, 2.0], jnp.bfloat16), jnp.float32(0.5))
      Array([0.5, 1], dtype=bfloat16)
    """
    return jnp.asarray(widen(x) * factor, jnp.result_type(x))
