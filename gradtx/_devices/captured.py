"""Arrays that functions capture from the scopes around them.

A function inside `shard_map` can use arrays with explicit axes in their types only if they are its
arguments. But rules capture arrays: hyperparameters, the step.
"""

import functools
from collections.abc import Callable, Iterator
from types import CellType, FunctionType
from typing import Any

import jax
from jax import Array


def captured(value: Any, wanted: Callable[[Array], bool]) -> list[Array]:
    """Returns the arrays in a function's closure, and in those of functions that it calls.

    Args:
      value: a function, or a pytree of functions.
      wanted: whether to include an array.
    """
    found: list[Array] = []

    def note(x: Array) -> Array:
        if wanted(x):
            found.append(x)
        return x

    _replaced(value, note, {})
    return found


def with_captured(value: Any, wanted: Callable[[Array], bool], arrays: Iterator[Array]) -> Any:
    """Returns a function like another one, with other arrays in its closure.

    Args:
      value: a function, or a pytree of functions.
      wanted: whether to replace an array.
      arrays: the new arrays, in the order of `captured`.
    """
    return _replaced(value, lambda x: next(arrays) if wanted(x) else x, {})


def _replaced(x: Any, put: Callable[[Array], Array], done: dict[int, Any]) -> Any:
    if isinstance(x, Array):
        return put(x)
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
