"""The exchange that brings whole matrices to each device, and takes results back.

Inside `shard_map` a device has parts of all matrices. `Division.gather` sends the parts of each
matrix to one device, so that every device has some whole matrices, and `Division.scatter` sends
results to where the parts were: an all-to-all each. Mesh axes over which the matrices are not
divided cost nothing on the way in, and an all-gather on the way out.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from gradtx._devices.types import Axes


class Division:
    """The division of stacks of matrices over the devices of a mesh.

    Matrices are numbered; the j-th device has those from `j * k` on, where `k` is their number
    divided by that of the devices, rounded up. The places that remain have zeros.

    Args:
      sizes: the names of the mesh axes, with their lengths, in the order that numbers the devices.
    """

    def __init__(self, sizes: Mapping[str, int]):
        self.sizes = dict(sizes)

    def gather(self, x: jax.Array, own: Axes) -> jax.Array:
        """Returns the whole matrices of this device, `(k, ...)`.

        Args:
          x: this device's parts of `n` matrices, `(n, ...)`.
          own: the mesh axes that divide each axis of a matrix.
        """
        used, free = self._used(own)
        parts, count = x.shape[1:], self.each(x.shape[0])
        missing = self._length(self.sizes) * count - x.shape[0]
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * len(parts))
        x = x.reshape(*self.sizes.values(), count, *parts)
        x = self._moved(x, [*free, *used]).reshape(self._length(free), -1, count, *parts)
        x = lax.dynamic_index_in_dim(x, lax.axis_index(free), keepdims=False) if free else x[0]
        if used:
            x = lax.all_to_all(x, used, 0, 0)
        return _joined(x.reshape(*(self.sizes[a] for a in used), count, *parts), own)

    def scatter(self, x: jax.Array, own: Axes, n: int) -> jax.Array:
        """Returns this device's parts of `n` results, `(n, ...)`.

        Args:
          x: the results of this device, `(k, ...)`.
          own: the mesh axes that divide each axis of a result.
          n: the number of results.
        """
        used, free = self._used(own)
        x = _divided(x, own, self.sizes)
        count, parts = x.shape[len(used)], x.shape[len(used) + 1 :]
        x = x.reshape(-1, count, *parts)
        if used:
            x = lax.all_to_all(x, used, 0, 0)
        if free:
            x = lax.all_gather(x, free)
        x = x.reshape(*(self.sizes[a] for a in (*free, *used)), count, *parts)
        order = [*free, *used]
        back = [order.index(a) for a in self.sizes]
        x = lax.transpose(x, (*back, *range(len(back), x.ndim)))
        return x.reshape(-1, *parts)[:n]

    def each(self, n: int) -> int:
        """Returns the number of places that each device has for `n` matrices."""
        return -(-n // self._length(self.sizes))

    def _used(self, own: Axes) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns the mesh axes that divide the matrices, and the others."""
        used = tuple(a for axes in own for a in axes)
        return used, tuple(a for a in self.sizes if a not in used)

    def _length(self, axes: Sequence[str] | Mapping[str, int]) -> int:
        return math.prod(self.sizes[a] for a in axes)

    def _moved(self, x: jax.Array, order: Sequence[str]) -> jax.Array:
        """Permutes leading axes, which are those of the mesh."""
        front = [list(self.sizes).index(a) for a in order]
        return lax.transpose(x, (*front, *range(len(front), x.ndim)))


def _joined(x: jax.Array, own: Axes) -> jax.Array:
    """Joins the parts of matrices.

    Args:
      x: `(mesh axes..., k, parts...)`, with the mesh axes in the order of `own`.
      own: the mesh axes that divide each axis of a matrix.
    """
    meshes = sum(map(len, own))
    order, shape, first = [meshes], [x.shape[meshes]], 0
    for number, axes in enumerate(own):
        mine = [*range(first, first + len(axes)), meshes + 1 + number]
        first += len(axes)
        order += mine
        shape.append(math.prod(x.shape[a] for a in mine))
    return lax.transpose(x, order).reshape(shape)


def _divided(x: jax.Array, own: Axes, sizes: Mapping[str, int]) -> jax.Array:
    """Returns `(mesh axes..., k, parts...)` for whole matrices `(k, ...)`."""
    shape, front, rest = [x.shape[0]], [], [0]
    for axes, length in zip(own, x.shape[1:], strict=True):
        mine = [sizes[a] for a in axes]
        front += range(len(shape), len(shape) + len(mine))
        rest.append(len(shape) + len(mine))
        shape += [*mine, length // math.prod(mine)]
    return lax.transpose(x.reshape(shape), (*front, *rest))
