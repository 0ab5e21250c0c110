"""Random bits for stochastic rounding: a hash of each entry's index and a seed.

They are the same however the array is divided over devices, and cost a few integer operations in
the kernel that rounds, where those of `jax.random` would cost more than the rest of the step.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax


def random_bits(seed: Array, shape: Sequence[int]) -> Array:
    """Returns random uint32 integers, of which the high bits are the best.

    Args:
      seed: a uint32 scalar; different seeds give different bits.
      shape: the shape of the result.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.codecs import random_bits
      >>> bits = random_bits(jnp.uint32(0), (1000,))
      >>> print(bits.dtype, abs((bits >> 31).mean() - 0.5) < 0.05)
      uint32 True
    """
    index = jnp.zeros((), jnp.uint32)
    for axis, n in enumerate(shape):
        if n > 1:
            stride = math.prod(shape[axis + 1 :]) % 2**32
            index = index + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    # The seed, a scalar, is mixed well; for the entries, whose number makes it the costly part, the
    # high bits of two products are enough.
    x = index * jnp.uint32(0x9E3779B1) + _mixed(_mixed(seed + jnp.uint32(0x9E3779B9)))
    return jnp.broadcast_to((x ^ (x >> 15)) * jnp.uint32(0x846CA68B), shape)


def _mixed(x: Array) -> Array:
    """Returns a bijective hash of uint32 integers (the constants are those of lowbias32)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
