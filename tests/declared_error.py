"""The errors that codecs declare, for each entry of an array."""

import jax.numpy as jnp
import numpy as np

from gradtx.codecs import blocks

LIMITED = {"float16": 2.0**-14, "float8_e4m3fn": 2.0**-6, "float8_e5m2": 2.0**-14}
"""The smallest normal number of the codecs that have neither a block nor float32's range."""

NORMAL = 2.0**-126
"""The smallest normal number of float32."""


def largest_of_blocks(name, x):
    """For each entry the largest magnitude in its block; for codecs without blocks 0."""
    if "int" not in name:
        return np.zeros(x.shape)
    four = "int4" in name
    cut = blocks.blocks_of(x.shape, 128 if four else 64, 2 if four else 1)
    split = cut.split(jnp.abs(x))
    largest = jnp.broadcast_to(jnp.max(split, axis=cut.within, keepdims=True), split.shape)
    return np.asarray(cut.join(largest), np.float64)


def bound_of(codec, x):
    """The declared error of rounding to nearest, of finite numbers."""
    name, size = codec.name, np.abs(x).astype(np.float64)
    largest = largest_of_blocks(name, x)
    if "int4" in name:
        largest = np.maximum(largest, 2.0**-118 * (size > 0))
    small = LIMITED.get(name.removesuffix("_stochastic"), NORMAL)
    # the last bits of float32 in the products of scale and code
    return codec.relative * np.maximum(size, small) + (codec.absolute + 2.0**-22) * largest
