"""Shorter floats: bfloat16, float16 and float8 as JAX has them, rounded to nearest or at random.

`float8_e5m2` and `float8_e4m3fn` have no scale: they are for numbers whose range is known, and pay
on accelerators, whose casts are single instructions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from gradtx.codecs.codec import Codec, Parts, With


def nearest(x: Array, dtype: DTypeLike) -> Array:
    """Returns numbers rounded to those that a shorter dtype has, in their own dtype.

    XLA may omit the conversion to a dtype and back (`xla_allow_excess_precision`), so that what
    depends on the rounding needs this one.

    Args:
      x: the numbers; if the dtype is not shorter than theirs, they are returned as they are.
      dtype: the shorter dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.codecs import nearest
      >>> print(nearest(jnp.array([1.001, 1.009]), jnp.bfloat16))
      [1.        1.0078125]
    """
    own, info = jnp.finfo(x.dtype), jnp.finfo(dtype)
    if info.nmant >= own.nmant:
        return x
    # Numbers below the normal ones, which `reduce_precision` takes for zero, are multiples of the
    # smallest one, and so is each number of the size of `large`.
    large = 1.5 * 2.0**own.nmant * float(info.smallest_subnormal)
    return jnp.where(
        jnp.abs(x) < float(info.smallest_normal),
        (x + large) - large,
        lax.reduce_precision(x, info.nexp, info.nmant),
    )


def stochastically(x: Array, bits: Array, dtype: DTypeLike) -> Array:
    """Returns float32 numbers that a shorter dtype has, rounded up or down at random.

    Numbers between the largest finite one of the dtype and the next are rounded down. Its
    derivative is 1, the expected one.

    Args:
      x: the numbers; those in another dtype are returned as they are.
      bits: random uint32 integers.
      dtype: the shorter dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.codecs import random_bits, stochastically
      >>> x = jnp.full(10_000, 1 + 2.0**-9)  # between 1 and 1 + 2**-7, which are bfloat16's
      >>> rounded = stochastically(x, random_bits(jnp.uint32(0), x.shape), jnp.bfloat16)
      >>> print(jnp.unique(rounded), jnp.round(rounded.mean(), 3))
      [1.        1.0078125] 1.002
    """
    dropped = 23 - jnp.finfo(dtype).nmant
    return x if x.dtype != jnp.float32 or dropped <= 0 else _rounded(x, bits, jnp.dtype(dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _rounded(x: Array, bits: Array, dtype: np.dtype) -> Array:
    dropped = 23 - jnp.finfo(dtype).nmant
    whole, kept = lax.bitcast_convert_type(x, jnp.uint32), jnp.uint32(2**32 - 2**dropped)
    down, near = (
        lax.bitcast_convert_type(found & kept, jnp.float32)
        for found in (whole, whole + (bits >> (32 - dropped)))
    )
    near = jnp.where(jnp.abs(down) == float(jnp.finfo(dtype).max), down, near)
    return jnp.where(jnp.isfinite(x), near, x)


@_rounded.defjvp
def _(
    dtype: np.dtype, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return _rounded(*primals, dtype), tangents[0]


def _encode(x: Array, bits: Array | None, dtype: DTypeLike) -> Parts:
    most = float(jnp.finfo(dtype).max)
    x = jnp.where(jnp.isinf(x), x, jnp.clip(x, -most, most))
    x = x if bits is None else stochastically(x, bits, dtype)
    return {"codes": _held(x.astype(dtype))}


def _decode(parts: Parts, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    codes = parts["codes"]
    codes = lax.bitcast_convert_type(codes, dtype) if dtype.itemsize == 1 else codes
    return codes.astype(jnp.float32)


def _held(codes: Array) -> Array:
    """Returns codes in the dtype in which they are kept: float8 as uint8, which `np.load` has."""
    return lax.bitcast_convert_type(codes, jnp.uint8) if codes.dtype.itemsize == 1 else codes


def _codec(name: str, stochastic: bool = False) -> Codec:
    dtype = jnp.dtype(name.removesuffix("_stochastic"))
    return Codec(
        name,
        With(_encode, dtype),
        With(_decode, dtype),
        relative=float(jnp.finfo(dtype).eps) / 2,
        stochastic=stochastic,
    )


BFLOAT16 = _codec("bfloat16")
BFLOAT16_STOCHASTIC = _codec("bfloat16_stochastic", stochastic=True)
FLOAT16 = _codec("float16")
FLOAT16_STOCHASTIC = _codec("float16_stochastic", stochastic=True)
FLOAT8_E4M3FN = _codec("float8_e4m3fn")
FLOAT8_E5M2 = _codec("float8_e5m2")
