"""The exchange that brings whole matrices to each device, and takes results back.

Inside `shard_map` a device has parts of all matrices. An all-to-all sends the parts of each matrix
to one device, so that every device has some whole matrices, and another one sends results to where
the parts were. Mesh axes over which the matrices are not divided cost nothing on the way in, and an
all-gather on the way out.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from gradtx._devices.types import Axes


class Division:
    """The division of rows, such as matrices, over the devices of a mesh.

    The rows of one call are divided evenly: the j-th device has those from `j * k` on, where `k` is
    their number divided by that of the devices.

    Args:
      sizes: the names of the mesh axes, with their lengths, in the order that numbers the devices.
      used: the mesh axes that divide each row, in their order in the row.
    """

    def __init__(self, sizes: Mapping[str, int], used: Sequence[str]):
        self.sizes, self.used = dict(sizes), tuple(used)
        self.free = tuple(a for a in sizes if a not in used)
        self.devices = math.prod(sizes.values())
        self._order = (*self.free, *self.used)

    def gather(self, x: jax.Array) -> jax.Array:
        """Returns the parts `(u, k, ...)` of this device's rows, from each of `u` devices.

        Args:
          x: this device's parts of all rows, `(k * devices, ...)`.
        """
        each, parts = x.shape[0] // self.devices, x.shape[1:]
        x = x.reshape(*self.sizes.values(), each, *parts)
        x = _permuted(x, [[*self.sizes].index(a) for a in self._order])
        x = x.reshape(self._length(self.free), self._length(self.used), each, *parts)
        first = lax.axis_index(self.free) if self.free else 0
        x = lax.dynamic_index_in_dim(x, first, keepdims=False)
        return lax.all_to_all(x, self.used, 0, 0) if self.used else x

    def scatter(self, x: jax.Array) -> jax.Array:
        """Returns this device's parts of all rows; the inverse of `gather`.

        Args:
          x: the parts of this device's rows, `(u, k, ...)`.
        """
        rows = x.shape[1:]
        x = lax.all_to_all(x, self.used, 0, 0) if self.used else x
        x = lax.all_gather(x, self.free) if self.free else x
        x = x.reshape(*(self.sizes[a] for a in self._order), *rows)
        x = _permuted(x, [self._order.index(a) for a in self.sizes])
        return x.reshape(self.devices * rows[0], *rows[1:])

    def join(self, x: jax.Array, axes: Axes) -> jax.Array:
        """Returns whole rows `(k, ...)` for their parts `(u, k, ...)`.

        Args:
          x: the parts.
          axes: the mesh axes that divide each axis of a row.
        """
        x = x.reshape(*(self.sizes[a] for a in self.used), *x.shape[1:])
        first, rows = 0, len(self.used)
        order, shape = [rows], [x.shape[rows]]
        for number, names in enumerate(axes, rows + 1):
            mine = [*range(first, first + len(names)), number]
            first += len(names)
            order += mine
            shape.append(math.prod(x.shape[a] for a in mine))
        return lax.transpose(x, order).reshape(shape)

    def cut(self, x: jax.Array, axes: Axes) -> jax.Array:
        """Returns the parts `(u, k, ...)` of whole rows `(k, ...)`; the inverse of `join`."""
        shape, front, rest = [x.shape[0]], [], [0]
        for names, length in zip(axes, x.shape[1:], strict=True):
            mine = [self.sizes[a] for a in names]
            front += range(len(shape), len(shape) + len(mine))
            rest.append(len(shape) + len(mine))
            shape += [*mine, length // math.prod(mine)]
        x = lax.transpose(x.reshape(shape), (*front, *rest))
        return x.reshape(self._length(self.used), *x.shape[len(front) :])

    def has(self, first: int, count: int) -> jax.Array:
        """Returns whether this device is one of `count` devices from the `first` on."""
        here = lax.axis_index(tuple(self.sizes))
        return (here >= first) & (here < first + count)

    def _length(self, axes: Sequence[str]) -> int:
        return math.prod(self.sizes[a] for a in axes)


def _permuted(x: jax.Array, front: Sequence[int]) -> jax.Array:
    return lax.transpose(x, (*front, *range(len(front), x.ndim)))


def widened(x: jax.Array, width: int) -> jax.Array:
    """Fills the last axis up with zeros.

    Args:
      x: an array.
      width: the new length of its last axis.
    """
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])


def shared_devices(counts: Sequence[int], devices: int) -> list[list[tuple[int, int]]]:
    """Returns how the last matrices of several kinds, fewer than the devices, share devices.

    Args:
      counts: the number of matrices of each kind, from the largest kind to the smallest.
      devices: the number of devices.

    Returns:
      Lists of the kinds' numbers with the first of their devices: each device has at most one
      matrix of the kinds in a list.
    """
    found: list[list[tuple[int, int]]] = []
    taken: list[int] = []
    for kind, count in enumerate(counts):
        if not count:
            continue
        room = next((i for i, n in enumerate(taken) if n + count <= devices), None)
        if room is None:
            room = len(found)
            found.append([])
            taken.append(0)
        found[room].append((kind, taken[room]))
        taken[room] += count
    return found
