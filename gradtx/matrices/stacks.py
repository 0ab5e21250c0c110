"""Functions of stacks of matrices, called for the leaves of a pytree.

Leaves whose matrices have one shape are joined to one stack. If the leaves are sharded over the
explicit axes of a mesh, whole matrices go to each device, and the function is called for those of
the device, see
`gradtx._devices`.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from gradtx._devices import (
    divided,
    explicit_mesh,
    placed as placed,
    placed_like as placed_like,
    typed_like as typed_like,
)
from gradtx.engine.base import Array
from gradtx.engine.cutting import cut
from gradtx.engine.numerics import compute_dtype, widen
from gradtx.engine.storage import store
from gradtx.matrices.layout import Layout, Place


class Part(NamedTuple):
    """A part of an array, which is cut out together with others.

    Attributes:
      whole: the array.
      start: the number of its first row.
      shape: the shape of the part: all its axes but those of a row are rows.
    """

    whole: Array
    start: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The dtype."""
        return self.whole.dtype

    @property
    def rows(self) -> np.ndarray:
        """The numbers of its rows."""
        return self.start + np.arange(math.prod(self.shape[: 1 - self.whole.ndim or None]))


class Column(NamedTuple):
    """An argument or a result of a function of stacks, for each leaf.

    Attributes:
      arrays: the arrays, by the leaves' numbers; of results only the shapes, dtypes and shardings
        are used. Those of arguments may be parts of one array.
      places: their places in the stacks.
      name: the name in error messages.
      after: `after(matrices, layout)`, a function applied to the results for one leaf, or `None`.
    """

    arrays: dict[int, Any]
    places: dict[int, Place]
    name: str = "the update"
    after: Callable[[Array, Layout], Array] | None = None

    def stack(self, i: int, x: Array) -> Array:
        """Returns the stack `(n, rows, columns)` for whole matrices of a leaf with all axes."""
        place = self.places[i]
        return place.turned(place.layout.merged(widen(x)))

    def unstack(self, i: int, x: Array) -> Array:
        """Returns the results with all their axes, in their dtype, for a stack of them."""
        place = self.places[i]
        x = x if self.after is None else self.after(x, place.layout)
        x = place.layout.split(place.turned(x))
        return store(x, self.arrays[i].dtype, self.name)

    def stack_all(self, leaves: Sequence[int]) -> Array:
        """Returns the stack for leaves with the same place and dtype."""
        layout, first = self.places[leaves[0]].layout, self.arrays[leaves[0]]
        x = _joined([self.arrays[i] for i in leaves])
        if len(leaves) > 1:
            layout = layout.repeated(len(leaves))
            x = lax.reshape(x, (len(leaves), *first.shape))
        return self.stack(leaves[0], layout.separate(x))

    def unstack_all(self, leaves: Sequence[int], stack: Array) -> Array:
        """Returns the results for leaves with the same place and dtype, joined along axis 0."""
        layout, first = self.places[leaves[0]].layout, self.arrays[leaves[0]]
        x = self.unstack(leaves[0], stack)
        if len(leaves) == 1:
            return layout.together(x, layout.counts)
        layout = layout.repeated(len(leaves))
        x = layout.together(x, layout.counts)
        return lax.reshape(x, (len(leaves) * first.shape[0], *first.shape[1:]))


def map_stacks(
    function: Callable[..., Sequence[Array]], given: Sequence[Column], results: Sequence[Column]
) -> list[dict[int, Array]]:
    """Calls a function of stacks of matrices once for each shape.

    Args:
      function: a function of one stack `(n, ...)` from each column, in float32 or wider, that
        returns a stack for each result. The result for an entry must not depend on the others.
      given: the arguments.
      results: the results' forms.

    Returns:
      For each result the arrays of the leaves.
    """
    groups: dict[Hashable, list[int]] = {}
    for i in given[0].arrays:
        shapes = tuple((c.places[i].shape, compute_dtype(c.arrays[i].dtype)) for c in given)
        groups.setdefault(shapes, []).append(i)
    mesh = explicit_mesh(
        x for column in given for x in column.arrays.values() if not isinstance(x, Part)
    )
    if mesh is not None:
        return divided(function, given, results, list(groups.values()), mesh)
    # All leaves are cut out of their stacks at the end, in one branch for each platform.
    whole: list[tuple[int, list[int], Array]] = []
    for group in groups.values():
        kinds = _kinds(group, (*given, *results))
        stacks = (_joined([column.stack_all(kind) for kind in kinds]) for column in given)
        sizes = [given[0].places[kind[0]].layout.matrices * len(kind) for kind in kinds]
        for number, stack in enumerate(function(*stacks)):
            parts = [stack] if len(kinds) == 1 else lax.split(stack, sizes)
            for kind, part in zip(kinds, parts, strict=True):
                whole.append((number, kind, results[number].unstack_all(kind, part)))
    found = [dict[int, Array]() for _ in results]
    parts = cut([x for _, _, x in whole], [len(kind) for _, kind, _ in whole])
    for (number, kind, _), leaves in zip(whole, parts, strict=True):
        found[number] |= dict(zip(kind, leaves, strict=True))
    return found


def _kinds(group: Sequence[int], columns: Sequence[Column]) -> list[list[int]]:
    """Returns the leaves of a group, those with the same places and dtypes together."""
    found: dict[Hashable, list[int]] = {}
    for i in group:
        kind = tuple((c.places[i], c.arrays[i].dtype) for c in columns)
        found.setdefault(kind, []).append(i)
    return list(found.values())


def _joined(stacks: Sequence[Any]) -> Array:
    first = stacks[0]
    if isinstance(first, Part):
        rows = np.concatenate([part.rows for part in stacks])
        found = first.whole.at[rows].get(mode="promise_in_bounds", unique_indices=True)
        return lax.reshape(found, (len(stacks) * first.shape[0], *first.shape[1:]))
    return first if len(stacks) == 1 else lax.concatenate(stacks, 0)
