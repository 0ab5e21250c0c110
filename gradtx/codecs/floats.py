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


def stochastically(x: Array, bits: Array, dtype: DTypeLike) -> Array:
    """Returns float32 numbers that a shorter dtype has, rounded up or down at random.

    Its derivative is 1, the expected one.

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
    return x if x.dtype != jnp.float32 or dropped <= 0 else _rounded(x, bits, dropped)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _rounded(x: Array, bits: Array, dropped: int) -> Array:
    whole = lax.bitcast_convert_type(x, jnp.uint32)
    rounded = (whole + (bits >> (32 - dropped))) & jnp.uint32(2**32 - 2**dropped)
    return jnp.where(jnp.isfinite(x), lax.bitcast_convert_type(rounded, jnp.float32), x)


@_rounded.defjvp
def _(
    dropped: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return _rounded(*primals, dropped), tangents[0]


def _encode(x: Array, bits: Array | None, dtype: DTypeLike) -> Parts:
    if bits is not None:
        x = stochastically(x, bits, dtype)
    most = float(jnp.finfo(dtype).max)
    codes = jnp.where(jnp.isinf(x), x, jnp.clip(x, -most, most)).astype(dtype)
    return {"codes": _held(codes)}


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
