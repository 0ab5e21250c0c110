"""Integers of 4 bits with one scale for each block of 128 entries, two in a byte.

A signed code `k` from -7 to 7 is `k / 7` of the block's largest magnitude; an unsigned one, from 0
to 15, is the square of `k / 15` of it, because it is the square root of a second moment that
divides. A positive entry never has the unsigned code 0, and the scale is at least 2^-118, so that
the code 1 is at least 2^-126, the smallest positive number that XLA does not take for zero. A block
with an infinity or NaN, or for unsigned codes with a negative entry beyond rounding errors, has no
finite entry.

Source: Li et al., "Memory Efficient Optimizers with 4-bit States", arXiv:2309.01507, on blocks and
on codes without zero.
"""

import math

import jax.numpy as jnp
from jax import Array, lax

from gradtx._devices import placed_with
from gradtx.codecs.blocks import Blocks, blocks_of
from gradtx.codecs.codec import Codec, Parts, With

SIZE = 128
"""The largest number of entries of a block."""

LEAST, MOST = 2.0**-118, 2.0**128 * (1 - 2.0**-20)
"""The least and the largest scale.

A 225th of the least, and 225 divided by it, are normal numbers. Below the largest, products with
reciprocals are finite however they are rounded.
"""


def _encode(x: Array, bits: Array | None, signed: bool) -> Parts:
    blocks = blocks_of(x.shape, SIZE, 2)
    x_split = blocks.split(x)
    largest = _largest_magnitude(blocks, x_split)
    if not signed:
        negative = _largest_magnitude(blocks, jnp.minimum(x_split, 0))
        negligible = 2.0**-8 * jnp.maximum(largest, LEAST)
        largest = jnp.where(negative > negligible, jnp.nan, largest)
    largest = jnp.where(jnp.isfinite(largest), jnp.clip(largest, LEAST, MOST), largest)
    # in units of a code, or of its square; the reciprocal of the largest scales is no normal number
    units = x_split * ((7 if signed else 225) / largest)
    dither = 0.5 if bits is None else blocks.split((bits >> 8).astype(jnp.float32) * 2.0**-24)
    if signed:
        code = jnp.clip(jnp.floor(units + dither), -7, 7)
    else:
        units = jnp.maximum(units, 0)
        below = jnp.minimum(jnp.floor(jnp.sqrt(units)), 14)
        # the squares of the next code and of this one differ by `2 * below + 1`
        above = units - below**2 >= (1 - dither) * (2 * below + 1)
        # as integers, of which the smallest are positive, too
        positive = lax.bitcast_convert_type(x_split, jnp.int32) > 0
        code = jnp.maximum(below + above, jnp.where(positive, 1, 0))
    bits_of_code = code.astype(jnp.int32).astype(jnp.uint8) & 15
    low, high = jnp.split(bits_of_code, 2, axis=blocks.within)
    codes = _halved(blocks).join(_apart(low | (high << 4), largest))
    return {"codes": placed_with(codes, x), "scale": jnp.squeeze(largest, blocks.within)}


def _decode(parts: Parts, shape: tuple[int, ...], signed: bool) -> Array:
    blocks = blocks_of(shape, SIZE, 2)
    packed = _halved(blocks).split(parts["codes"])
    code = jnp.concatenate([packed & 15, packed >> 4], axis=blocks.within)
    scale = jnp.expand_dims(parts["scale"], blocks.within)
    if signed:
        code = (code ^ 8).astype(jnp.float32) - 8
        x = code * (1 / 7) * scale
    else:
        code = code.astype(jnp.float32)
        x = code * code * (1 / 225) * scale
    return placed_with(blocks.join(x), parts["codes"])


def _apart(codes: Array, largest: Array) -> Array:
    """Returns the codes of usual blocks, and zeros for blocks without a finite entry.

    XLA on CPUs does not vectorize a kernel that ends with the join of the blocks, where the entries
    of a byte are not at equal distances. A branch ends the kernel before that.
    """

    def rare(codes: Array) -> Array:
        return jnp.where(jnp.isfinite(largest), codes, 0)

    def branch(codes: Array) -> Array:
        return lax.cond(jnp.all(jnp.isfinite(largest)), lambda x: x, rare, codes)

    return lax.platform_dependent(codes, cpu=branch, default=rare)


def _largest_magnitude(blocks: Blocks, x: Array) -> Array:
    # As integers, which XLA compares within the kernel that computes them; NaN is the largest.
    bits = lax.bitcast_convert_type(x, jnp.int32) & 0x7FFFFFFF
    return lax.bitcast_convert_type(blocks.largest(bits), jnp.float32)


def _halved(blocks: Blocks) -> Blocks:
    """Returns the blocks of the bytes, each of which has two codes."""
    if blocks.axis is None:
        length = -(-math.prod(blocks.shape) // blocks.size) * blocks.size // 2
        return Blocks((length,), None, blocks.size // 2)
    shape = list(blocks.shape)
    shape[blocks.axis] //= 2
    return Blocks(tuple(shape), blocks.axis, blocks.size // 2)


def _codec(name: str, signed: bool, stochastic: bool) -> Codec:
    return Codec(
        name,
        With(_encode, signed),
        With(_decode, signed),
        relative=0.0,
        absolute=1 / 14 if signed else 29 / 450,
        stochastic=stochastic,
    )


INT4 = _codec("int4", signed=True, stochastic=True)
INT4_NEAREST = _codec("int4_nearest", signed=True, stochastic=False)
UINT4 = _codec("uint4", signed=False, stochastic=True)
UINT4_NEAREST = _codec("uint4_nearest", signed=False, stochastic=False)
