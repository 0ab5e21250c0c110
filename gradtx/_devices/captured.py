"""Arrays that functions capture from the scopes around them.

A function inside `shard_map` or `auto_axes` can use arrays with explicit axes in their types if
they are its arguments. But rules capture arrays: hyperparameters, the step.
"""

import functools
from collections.abc import Callable, Sequence
from types import CellType, FunctionType
from typing import Any, TypeAlias

import jax
from jax import Array
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec, reshard

from gradtx._devices.types import explicit_mesh

Put: TypeAlias = Callable[[Array, AbstractMesh], Array]


def captured(value: Any) -> list[Array]:
    """Returns the arrays with explicit axes in the closures of functions, whole on each device.

    Args:
      value: a function, or a pytree of functions; those that they capture are searched too.
    """
    found: list[Array] = []

    def note(x: Array, mesh: AbstractMesh) -> Array:
        found.append(reshard(x, NamedSharding(mesh, PartitionSpec())))
        return x

    _replaced(value, note, {})
    return found


def with_captured(value: Any, arrays: Sequence[Array]) -> Any:
    """Returns functions with other arrays in their closures.

    Args:
      value: a function, or a pytree of functions.
      arrays: the new arrays, in the order of `captured`.
    """
    rest = iter(arrays)
    return _replaced(value, lambda x, mesh: next(rest), {})


def _replaced(x: Any, put: Put, done: dict[int, Any]) -> Any:
    if isinstance(x, Array):
        mesh = explicit_mesh([x])
        return x if mesh is None else put(x, mesh)
    if id(x) in done:
        return done[id(x)]
    if isinstance(x, functools.partial):
        parts = _replaced((x.func, x.args, x.keywords), put, done)
        return functools.partial(parts[0], *parts[1], **parts[2])
    if isinstance(x, FunctionType) and x.__closure__:
        cells = tuple(CellType() for _ in x.__closure__)
        new = FunctionType(x.__code__, x.__globals__, x.__name__, x.__defaults__, cells)
        new.__kwdefaults__ = x.__kwdefaults__
        done[id(x)] = new  # before its cells, one of which a recursive function is in
        for cell, old in zip(cells, x.__closure__, strict=True):
            if old != CellType():  # not yet assigned
                cell.cell_contents = _replaced(old.cell_contents, put, done)
        return new
    parts, treedef = jax.tree.flatten(x, is_leaf=lambda y: y is not x)
    if len(parts) == 1 and parts[0] is x:
        return x
    return treedef.unflatten([_replaced(y, put, done) for y in parts])
