"""Functions of stacks of matrices, called for the leaves of a pytree.

Leaves whose matrices have one shape are joined to one stack. If the leaves are sharded over the
explicit axes of a mesh, whole matrices go to each device, and the function is called for those of
the device, see `gradtx._devices.exchange`.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import NamedSharding

from gradtx._devices import (
    Axes,
    Division,
    axes_of,
    explicit_axes,
    explicit_mesh,
    partition_spec,
)
from gradtx.engine.base import Array
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
    arrays = [dict(column.arrays) for column in given]
    mesh = explicit_mesh(x for column in arrays for x in column.values())
    if mesh is None or math.prod(mesh.shape[a] for a in explicit_axes(mesh)) == 1:
        return _mapped(function, given, results, arrays, None)
    sizes = {name: mesh.shape[name] for name in explicit_axes(mesh)}
    forms = [{i: axes_of(x) for i, x in column.arrays.items()} for column in (*given, *results)]
    specs = [{i: partition_spec(x) for i, x in form.items()} for form in forms]

    def local(arrays: list[dict[int, Array]]) -> list[dict[int, Array]]:
        return _mapped(function, given, results, arrays, (sizes, forms))

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs[: len(given)],),
        out_specs=specs[len(given) :],
        axis_names=set(sizes),
        check_vma=False,
    )(arrays)


Devices = tuple[Mapping[str, int], Sequence[Mapping[int, Axes]]]
"""The mesh axes with their lengths, and for each column the mesh axes of each leaf's axes."""


def _mapped(
    function: Callable[..., Sequence[Array]],
    given: Sequence[Column],
    results: Sequence[Column],
    arrays: Sequence[Mapping[int, Array]],
    devices: Devices | None,
) -> list[dict[int, Array]]:
    """Returns the results; with `devices`, for the parts of arrays that are on this device."""
    columns, found = (*given, *results), [dict[int, Array]() for _ in results]
    groups: dict[Hashable, dict[Hashable, list[int]]] = {}
    for i in arrays[0] if arrays else ():
        shapes = tuple((c.places[i].shape, compute_dtype(c.arrays[i].dtype)) for c in given)
        kind = i if devices is None else _kind(columns, devices, i)
        groups.setdefault(shapes, {}).setdefault(kind, []).append(i)
    for group in groups.values():
        kinds = list(group.values())
        parts = [
            [_stack(column, arrays[k], ids, _division(devices, k, column, ids)) for ids in kinds]
            for k, column in enumerate(given)
        ]
        made = function(*map(_joined, parts))
        sizes = [part.shape[0] for part in parts[0]]
        for k, (column, stack) in enumerate(zip(results, made, strict=True), len(given)):
            for ids, part in zip(kinds, _split(stack, sizes), strict=True):
                division = _division(devices, k, column, ids)
                found[k - len(given)] |= _unstack(column, part, ids, division)
    return found


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


class _Parts(NamedTuple):
    """The parts of the matrices of one kind of leaves on one device."""

    division: Division
    own: Axes
    counts: tuple[int, ...]


def _division(
    devices: Devices | None, number: int, column: Column, ids: Sequence[int]
) -> _Parts | None:
    if devices is None:
        return None
    sizes, forms = devices
    layout, axes = column.places[ids[0]].layout, forms[number][ids[0]]
    axes = [axes[a] for a in layout.order]
    counting = [a for names in axes[: layout.counted] for a in names]
    counts = tuple(
        n // math.prod(sizes[a] for a in names)
        for n, names in zip(layout.counts, axes, strict=False)
    )
    rest = {name: size for name, size in sizes.items() if name not in counting}
    return _Parts(Division(rest), tuple(axes[layout.counted :]), counts)


def _kind(columns: Sequence[Column], devices: Devices, i: int) -> Hashable:
    """Returns what must be equal for leaves whose matrices are exchanged together."""
    dtypes = (column.arrays[i].dtype for column in columns)
    forms = [form[i] for form in devices[1]]
    counting = {form[: c.places[i].layout.counted] for c, form in zip(columns, forms, strict=True)}
    alone = i if len(counting) > 1 else -1
    return alone, *zip((c.places[i] for c in columns), dtypes, forms, strict=True)


def _stack(
    column: Column, arrays: Mapping[int, Array], ids: Sequence[int], parts: _Parts | None
) -> Array:
    """Returns the stack of the leaves' matrices: all of them, or those of this device."""
    layout = column.places[ids[0]].layout
    x = _joined([layout.separate(arrays[i]) for i in ids])
    if parts is not None:
        x = parts.division.gather(x, parts.own)
    return column.places[ids[0]].turned(layout.merged(widen(x)))


def _unstack(
    column: Column, x: Array, ids: Sequence[int], parts: _Parts | None
) -> dict[int, Array]:
    """Returns the leaves' arrays for a stack of their matrices."""
    place = column.places[ids[0]]
    x = x if column.after is None else column.after(x, place.layout)
    x = place.layout.split(place.turned(x))
    x = store(x, column.arrays[ids[0]].dtype, column.name)
    counts = place.layout.counts if parts is None else parts.counts
    each = math.prod(counts)
    if parts is not None:
        x = parts.division.scatter(x, parts.own, each * len(ids))
    found = _split(x, [each] * len(ids))
    return {i: place.layout.together(y, counts) for i, y in zip(ids, found, strict=True)}


def _joined(stacks: Sequence[Array]) -> Array:
    return stacks[0] if len(stacks) == 1 else lax.concatenate(stacks, 0)


def _split(stack: Array, sizes: Sequence[int]) -> Sequence[Array]:
    return [stack] if len(sizes) == 1 else lax.split(stack, sizes)
