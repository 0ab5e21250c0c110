"""Random keys of the matrices of a pytree, the same on every mesh."""

import jax
import numpy as np

from gradtx._devices import explicit_mesh, placed, placed_like
from gradtx.engine.base import Array, PyTree
from gradtx.engine.scalars import finished
from gradtx.matrices.layout import Place, place_of_slots
from gradtx.matrices.stacks import Column, Part


def key_data(key: Array, places: dict[int, Place]) -> Array:
    """Returns the data of a random key for each matrix of the leaves, one after another.

    Args:
      key: the key.
      places: the places of the leaves.
    """
    sizes = [place.layout.matrices for place in places.values()]
    # All in one computation: one for each leaf would take XLA long to compile.
    of_leaf = np.repeat(np.asarray([*places], int), sizes)
    of_matrix = np.concatenate([np.arange(size) for size in (0, *sizes)])
    return _folded(key, of_leaf, of_matrix)


@jax.jit
def _folded(key: Array, of_leaf: Array, of_matrix: Array) -> Array:
    folded = jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))
    return finished(jax.random.key_data(folded(of_leaf, of_matrix)))


def keys_of_leaves(data: Array, leaves: dict[int, PyTree], places: dict[int, Place]) -> Column:
    """Returns the data of the random keys of each leaf's matrices.

    Args:
      data: those of all matrices.
      leaves: the leaves.
      places: their places.
    """
    column, start = Column({}, {}, "the random keys"), 0
    alone = explicit_mesh(leaves[i] for i in places) is None
    for i, place in places.items():
        stop = start + place.layout.matrices
        mine = column.places[i] = place_of_slots(place, data.shape[1:])
        part = Part(data, start, mine.layout.shape)
        if alone:
            column.arrays[i] = part
        else:
            typed = placed_like(leaves[i], place.layout, mine.layout, data.dtype)
            column.arrays[i] = placed(data[start:stop].reshape(part.shape), typed.sharding)
        start = stop
    return column
