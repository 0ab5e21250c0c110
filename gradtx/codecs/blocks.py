"""Blocks of an array that share a scale.

A block is a part of one axis, of at most 64 or 128 entries, whose length divides that of the axis.
So the codes have the shape of the array, the scales have a shape of as many axes, and both are
divided over the devices of a mesh as the array is; the blocks do not depend on the mesh. An array
without such an axis is cut into blocks as a vector.

Blocks are kept as an axis of their own while they are coded. On CPUs their largest entries are
found in stages of at most 32 entries, which XLA compiles into the kernels around them.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
from jax import Array, lax

from gradtx._devices import undivided

SHORTEST, UNROLLED = 16, 32
"""The shortest blocks along an axis, and the most entries that one stage of a reduction has."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The blocks of arrays of a shape.

    Attributes:
      shape: the shape of the arrays.
      axis: the axis of which blocks are parts; `None` for blocks of the array as a vector.
      size: the number of entries of a block.
    """

    shape: tuple[int, ...]
    axis: int | None
    size: int

    @property
    def within(self) -> int:
        """The axis of the entries of a block, in an array that is split."""
        return 1 if self.axis is None else self.axis + 1

    def split(self, x: Array) -> Array:
        """Returns an array with an axis of blocks, and one of the entries of a block after it."""
        if self.axis is None:
            x = undivided(x).reshape(-1)
            return jnp.pad(x, (0, -x.size % self.size)).reshape(-1, self.size)
        x = undivided(x, self.axis, self.size)
        lengths = x.shape[self.axis] // self.size, self.size
        return x.reshape(*x.shape[: self.axis], *lengths, *x.shape[self.axis + 1 :])

    def join(self, x: Array) -> Array:
        """Returns the array whose blocks are the given ones."""
        if self.axis is None:
            return x.reshape(-1)[: math.prod(self.shape)].reshape(self.shape)
        before, after = x.shape[: self.axis], x.shape[self.axis + 2 :]
        return x.reshape(*before, x.shape[self.axis] * x.shape[self.within], *after)

    def largest(self, x: Array) -> Array:
        """Returns the largest entry of each block of an array that is split; its axis is kept."""
        return lax.platform_dependent(x, cpu=self._largest_in_stages, default=self._largest)

    def _largest(self, x: Array) -> Array:
        return jnp.expand_dims(lax.reduce_max(x, (self.within,)), self.within)

    def _largest_in_stages(self, x: Array) -> Array:
        stage = _divisor(self.size, UNROLLED)
        if self.within < x.ndim - 1 or stage == self.size:
            return self._largest(x)
        parts = x.reshape(*x.shape[:-1], self.size // stage, stage)
        found = lax.reduce_max(parts, (x.ndim,))
        return functools.reduce(jnp.maximum, jnp.split(found, self.size // stage, axis=-1))


def blocks_of(shape: tuple[int, ...], most: int, multiple: int = 1) -> Blocks:
    """Returns the blocks of arrays of a shape.

    Args:
      shape: the shape.
      most: the largest number of entries of a block.
      multiple: a number of which the number of entries must be a multiple. Default: 1.
    """
    sizes = [_divisor(n, most, multiple) for n in shape]
    best = max(sizes, default=0)
    if best < SHORTEST:
        return Blocks(shape, None, most)
    if sizes[-1] >= UNROLLED:
        return Blocks(shape, len(shape) - 1, sizes[-1])
    axis = max(i for i, size in enumerate(sizes) if size == best)
    return Blocks(shape, axis, best)


def _divisor(n: int, most: int, multiple: int = 1) -> int:
    """Returns the largest divisor of a length up to a bound, or 0."""
    found = (d for d in range(min(n, most), 0, -1) if n % d == 0 and d % multiple == 0)
    return next(found, 0)
