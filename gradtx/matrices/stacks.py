"""Functions of stacks of matrices, called for the leaves of a pytree.

Leaves whose matrices have one shape are joined to one stack. If the leaves are sharded over the
explicit axes of a mesh, whole matrices go to each device, and the function is called for those of
the device, see
`gradtx._devices`.
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._devices import (
    divided,
    explicit_mesh,
    placed as placed,
    placed_like as placed_like,
    typed_like as typed_like,
)
from gradtx.engine.base import Array
from gradtx.engine.numerics import compute_dtype, widen
from gradtx.engine.storage import store
from gradtx.matrices.layout import Layout, Place


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
    if mesh is not None:
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


def _joined(stacks: Sequence[Array]) -> Array:
    return stacks[0] if len(stacks) == 1 else lax.concatenate(stacks, 0)


def _split(stack: Array, sizes: Sequence[int]) -> Sequence[Array]:
    """Returns the parts of a stack for its leaves.

    XLA on CPUs fuses a part into the kernels of its leaf. With the first row as a constant, the
    kernels of leaves of one shape differ, and each is compiled; so it is passed at run time there.
    """
    if len(sizes) == 1:
        return [stack]

    def at_run_time(stack: Array) -> list[Array]:
        rows = _at_run_time(itertools.accumulate(sizes[:-1], initial=0))
        pairs = zip(rows, sizes, strict=True)
        return [lax.dynamic_slice_in_dim(stack, row, size) for row, size in pairs]

    return lax.platform_dependent(
        stack, cpu=at_run_time, default=lambda stack: lax.split(stack, sizes)
    )


def _at_run_time(numbers: Iterable[int]) -> list[Array]:
    """Returns integers as arrays that are computed at run time, by a sort.

    The compiler does not replace the results of the sort by constants.
    """
    key = lax.optimization_barrier(jnp.zeros(2, jnp.int32))
    columns = [jnp.full(2, number, jnp.int32) for number in numbers]
    return [column[0] for column in lax.sort((key, *columns), num_keys=1)[1:]]
