"""Functions of stacks of matrices, called for the leaves of a pytree.

Leaves whose matrices have one shape are joined to one stack. If the leaves are sharded over the
explicit axes of a mesh, whole matrices go to each device, and the function is called for those of
the device, see `divided`.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import NamedSharding

from gradtx._devices import axes_of, explicit_axes, explicit_mesh, partition_spec
from gradtx.engine.base import Array
from gradtx.engine.divided import divided
from gradtx.engine.matrix_layout import Layout, Place
from gradtx.engine.numerics import compute_dtype, widen
from gradtx.engine.storage import store


class Column(NamedTuple):
    """An argument or a result of a function of stacks, for each leaf.

    Attributes:
      arrays: the arrays, by the leaves' numbers; of results only the shapes, dtypes and shardings
        are used.
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
    mesh = explicit_mesh(x for column in given for x in column.arrays.values())
    if mesh is not None and math.prod(mesh.shape[a] for a in explicit_axes(mesh)) > 1:
        return divided(function, given, results, list(groups.values()), mesh)
    found = [dict[int, Array]() for _ in results]
    for group in groups.values():
        stacks = (_joined([_apart(c, i) for i in group]) for c in given)
        sizes = [given[0].places[i].layout.matrices for i in group]
        for column, new, stack in zip(results, found, function(*stacks), strict=True):
            for i, part in zip(group, _split(stack, sizes), strict=True):
                layout = column.places[i].layout
                new[i] = layout.together(column.unstack(i, part), layout.counts)
    return found


def _apart(column: Column, i: int) -> Array:
    return column.stack(i, column.places[i].layout.separate(column.arrays[i]))


def placed_like(leaf: Any, layout: Layout, slot: Layout, dtype: Any) -> jax.ShapeDtypeStruct:
    """Returns the type of a slot of a leaf's matrices, which is divided as they are.

    It is divided by the mesh axes that divide the leaf's matrices among themselves. By the other
    explicit axes it is divided along the matrices too, if each device then has equally many, and
    otherwise along its longest axes.

    Args:
      leaf: the leaf, or its type.
      layout: the leaf's layout.
      slot: the slot's layout.
      dtype: the slot's dtype.
    """
    mesh = explicit_mesh([leaf])
    if mesh is None:
        return jax.ShapeDtypeStruct(slot.shape, dtype)
    of_leaf = axes_of(leaf)
    axes = [list(of_leaf[a]) for a in layout.order[: layout.counted]]
    axes += [[] for _ in slot.shape[layout.counted :]]
    local = [
        n // math.prod(mesh.shape[name] for name in names)
        for n, names in zip(slot.shape, axes, strict=True)
    ]
    taken = {name for names in axes for name in names}
    rest = [name for name in explicit_axes(mesh) if name not in taken]
    if layout.counted and local[0] % math.prod(mesh.shape[name] for name in rest) == 0:
        axes[0] += rest
        rest = []
    for name in rest:
        longest = max(range(slot.counted, len(local)), key=local.__getitem__, default=0)
        if local[longest] % mesh.shape[name] == 0:
            axes[longest].append(name)
            local[longest] //= mesh.shape[name]
    sharding = NamedSharding(mesh, partition_spec(axes))
    return jax.ShapeDtypeStruct(slot.shape, dtype, sharding=sharding)


def _joined(stacks: Sequence[Array]) -> Array:
    return stacks[0] if len(stacks) == 1 else lax.concatenate(stacks, 0)


def _split(stack: Array, sizes: Sequence[int]) -> Sequence[Array]:
    return [stack] if len(sizes) == 1 else lax.split(stack, sizes)
