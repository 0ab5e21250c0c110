"""Floats of 8 bits with one power of two for each block of 64 entries.

A signed code has a sign, 4 bits of exponent and 3 of the mantissa; an unsigned one 5 and 3, so that
it spans 32 powers of two as a second moment does where its gradients span 16. They are bits of the
float32 number, moved by a multiple of the block's power of two, so that shifts and additions of
integers code and decode them. (XLA's casts to float8 are slow on CPUs.)

A positive entry never has an unsigned code of less than 2^-126, the smallest positive number that
XLA does not take for zero: a second moment of zero would divide by zero. The largest codes are
those of infinity and NaN, to which no finite entry is rounded.
"""

import jax.numpy as jnp
from jax import Array, lax

from gradtx._devices import placed_with
from gradtx.codecs.blocks import blocks_of
from gradtx.codecs.codec import Codec, Parts, With

SIZE = 64
"""The largest number of entries of a block."""

INFINITY, HALF_CODE, CODE = 0x7F800000, 1 << 19, 20
"""The bits of infinity, half the distance of two codes, and the number of bits that are dropped."""

LARGEST, SMALLEST = (INFINITY - 1) >> CODE, (1 << 23) >> CODE
"""The codes of the largest finite number and of the smallest positive one, without an offset."""


def _encode(x: Array, bits: Array | None, signed: bool) -> Parts:
    blocks = blocks_of(x.shape, SIZE)
    whole = lax.bitcast_convert_type(blocks.split(x), jnp.int32)
    magnitude = whole & 0x7FFFFFFF
    largest = blocks.largest(jnp.where(magnitude < INFINITY, magnitude, 0))
    # From 1.5 times a power of two on, the next power, so that no finite entry reaches the codes of
    # infinity and NaN.
    exponent = (largest + (1 << 22)) >> 23
    dither = HALF_CODE
    if bits is not None:
        dither = blocks.split((bits >> (32 - CODE)).astype(jnp.int32))
    offset = _offset(exponent, signed)
    code = jnp.minimum((magnitude + dither) >> CODE, LARGEST) - offset
    least = 0 if signed else jnp.where(magnitude > 0, jnp.maximum(SMALLEST - offset, 1), 0)
    code = jnp.maximum(code, least)
    top = 126 if signed else 254
    code = jnp.where(magnitude < INFINITY, code, top + (magnitude > INFINITY))
    if signed:
        code = code | ((whole >> 24) & 128)
    else:  # rounding errors below zero become zero; negative moments are no second moments
        code = jnp.where(whole < 0, jnp.where(code < 184, 0, 255), code)
    return {
        "codes": placed_with(blocks.join(code.astype(jnp.uint8)), x),
        "scale": jnp.squeeze(exponent.astype(jnp.uint8), blocks.within),
    }


def _decode(parts: Parts, shape: tuple[int, ...], signed: bool) -> Array:
    blocks = blocks_of(shape, SIZE)
    found = blocks.split(parts["codes"]).astype(jnp.int32)
    exponent = jnp.expand_dims(parts["scale"].astype(jnp.int32), blocks.within)
    code, top = (found & 127, 126) if signed else (found, 254)
    magnitude = jnp.where(code == 0, 0, code + _offset(exponent, signed)) << CODE
    magnitude = jnp.where(code < top, magnitude, INFINITY | ((code & 1) << 22))
    if signed:
        magnitude = magnitude | ((found & 128) << 24)
    x = blocks.join(lax.bitcast_convert_type(magnitude, jnp.float32))
    return placed_with(x, parts["codes"])


def _offset(exponent: Array, signed: bool) -> Array:
    """Returns the difference of the bits of a number, without the dropped ones, and its code."""
    return jnp.maximum(exponent - (15 if signed else 31), 0) << (23 - CODE)


def _codec(name: str, signed: bool, stochastic: bool) -> Codec:
    return Codec(
        name,
        With(_encode, signed),
        With(_decode, signed),
        relative=2**-4,
        absolute=2**-14 if signed else 2**-30,
        stochastic=stochastic,
    )


INT8 = _codec("int8", signed=True, stochastic=True)
INT8_NEAREST = _codec("int8_nearest", signed=True, stochastic=False)
UINT8 = _codec("uint8", signed=False, stochastic=True)
UINT8_NEAREST = _codec("uint8_nearest", signed=False, stochastic=False)
