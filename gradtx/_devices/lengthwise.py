"""A function of stacks for a matrix that is divided along its long side.

Whole, a matrix that is alone in its stack would occupy one device while the others wait. If it is
divided along its long side, the compiler divides its products with short matrices, and adds the
parts of small ones, such as `x @ x.T`, at each step of an iteration.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax import Array, lax
from jax.sharding import (
    AbstractMesh,
    NamedSharding,
    auto_axes,
    get_abstract_mesh,
    use_abstract_mesh,
)

from gradtx._devices.captured import captured, with_captured
from gradtx._devices.types import Column, axes_of, explicit_axes, partition_spec

LARGE, LONG = 2**20, 8
"""The number of elements, and the ratio of the sides, from which a matrix is divided itself."""


def is_divided_itself(column: Column, group: Sequence[int]) -> bool:
    """Returns whether the only matrix of its shape is divided along its long side.

    Args:
      column: the first argument of the function of stacks.
      group: the numbers of leaves that share a stack.
    """
    place = column.places[group[0]]
    short, long = sorted(place.shape)
    alone = len(group) == 1 and place.layout.matrices == 1
    return alone and short * long >= LARGE and long >= LONG * short


def lengthwise(
    function: Callable[..., Sequence[Array]],
    given: Sequence[Column],
    results: Sequence[Column],
    i: int,
    mesh: AbstractMesh,
) -> Sequence[Array]:
    """Calls a function of stacks for a matrix that is divided along its long side.

    Args:
      function: the function.
      given: the columns of arguments.
      results: the columns of results.
      i: the number of the matrix's leaf.
      mesh: the mesh of the arguments.

    Returns:
      The leaf's array for each result.
    """
    names, shape = explicit_axes(mesh), given[0].places[i].shape
    side: list[tuple[str, ...]] = [(), (), ()]
    side[1 + (shape[1] > shape[0])] = names

    functions = (function, [column.after for column in results])

    def run(shared: list[Array], arrays: list[Array]) -> list[Array]:
        function, after = with_captured(functions, shared)
        sharding = NamedSharding(get_abstract_mesh(), partition_spec(side))
        stacks = [
            column.stack(i, column.places[i].layout.separate(x))
            for column, x in zip(given, arrays, strict=True)
        ]
        found = function(
            *(
                lax.with_sharding_constraint(x, sharding) if x.shape[1:] == shape else x
                for x in stacks
            )
        )
        return [
            column.places[i].layout.together(
                column._replace(after=f).unstack(i, x), column.places[i].layout.counts
            )
            for column, f, x in zip(results, after, found, strict=True)
        ]

    specs = [partition_spec(axes_of(column.arrays[i])) for column in results]
    with use_abstract_mesh(mesh):
        over_automatic_axes: Any = auto_axes(run, axes=names, out_sharding=specs)
        return over_automatic_axes(captured(functions), [column.arrays[i] for column in given])
