"""Finding and replacing parts of a state by name.

A name is a field of a NamedTuple or a dataclass, a key of a dict, or the class of a state.

Several parts of a state may have the same name. The last state of every optimizer has its own count
of steps, and the learning rate of the last step; a user who asks for the `count` of Adam, or for an
injected `learning_rate`, means another part. The roles of the fields tell them apart (see
`gradtx._roles`): a `Clock` repeats the count of other parts, so that all are equal. A `Rate`
only reports the learning rate of a step, and the next step overwrites it.

The lookup returns such fields only if nothing else has the name. `set` also sets the fields that
repeat the value, so that all stay equal, and does not set those that only report it.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.codecs import is_coded
from gradtx.engine.base import PyTree
from gradtx.tree.walking import NamedTupleKey, Part, Path, children, replaced, walk

Filter = Callable[[Path, PyTree], bool]


def get_all_with_path(
    tree: PyTree, key: Hashable, filtering: Filter | None = None
) -> list[tuple[Path, PyTree]]:
    """Returns all parts of a pytree that have a given name, with their paths.

    Args:
      tree: a pytree, such as a state.
      key: a field of a NamedTuple or dataclass, a key of a dict, or the name of a state's class.
      filtering: `filtering(path, value) -> bool`, a function that selects among the matches. A path
        is a tuple of `NamedTupleKey` and of JAX's keys (`DictKey`, `SequenceKey`, `GetAttrKey`).
        Default: `None`, all matches.

    Returns:
      Pairs `(path, value)`. Fields that only repeat or report other parts of a state (see
      `gradtx.tree.lookup`) are among them only if nothing else matches.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> state = gradtx.adam(0.1).init(jnp.zeros(2))
      >>> [(path, value)] = gradtx.tree.get_all_with_path(state, "count")
      >>> print(*path, value)
      [0] ScaleByAdamState.count 0
    """
    return [(match.path, match.value) for match in _preferred(_matches(tree, key, filtering))]


def get(
    tree: PyTree, key: Hashable, default: PyTree = None, filtering: Filter | None = None
) -> PyTree:
    """Returns the part of a pytree that has a given name.

    Args:
      tree: a pytree, such as a state.
      key: a field of a NamedTuple or dataclass, a key of a dict, or the name of a state's class.
      default: the result if nothing has the name. Default: `None`.
      filtering: `filtering(path, value) -> bool`, a function that selects among the matches; see
        `get_all_with_path`. Default: `None`, all matches.

    Raises:
      KeyError: several parts have the name; the message names their paths. Fields that only repeat
        or report other parts are not counted.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> state = gradtx.adam(0.1).init(jnp.zeros(2))
      >>> print(gradtx.tree.get(state, "learning_rate"), gradtx.tree.get(state, "trace"))
      0.1 None
    """
    found = _preferred(_matches(tree, key, filtering))
    if not found:
        return default
    if len(found) > 1 and not all(match.role.repeats for match in found):
        places = ", ".join(_told(match.path) for match in found)
        raise KeyError(
            f"tree.get: {key!r} is ambiguous, found at {places}; select one with filtering="
        )
    return found[-1].value


def set(tree: PyTree, filtering: Filter | None = None, /, **kwargs: Any) -> PyTree:
    """Returns a copy of a pytree in which all parts that have given names are replaced.

    Args:
      tree: a pytree, such as a state.
      filtering: `filtering(path, value) -> bool`, a function that selects the matches to replace;
        see `get_all_with_path`. Default: `None`, all matches.
      **kwargs: the new values by name, set in the order in which they are given. A Python number
        gets the dtype of the array that it replaces, if that can hold it, and an array the codes of
        one that is stored as codes, so that nothing is recompiled.

    Raises:
      KeyError: nothing has the name, or only a field that reports the value of the last step, which
        the next step would overwrite.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> state = gradtx.sgd(lambda count: 0.1 / (count + 1)).init(jnp.zeros(2))
      >>> state = gradtx.tree.set(state, count=9)
      >>> print(gradtx.tree.get(state, "count"))
      9
    """
    for key, value in kwargs.items():
        found = _matches(tree, key, filtering)
        if not found:
            some = " passes the filter and" if filtering is not None else ""
            raise KeyError(
                f"tree.set: nothing{some} is named {key!r}; the names are {_names(tree)}"
            )
        new = {m.path: _stored_alike(value, m.value) for m in found if not _only_reports(m)}
        if not new:
            places = ", ".join(_told(match.path) for match in found)
            raise KeyError(
                f"tree.set: {key!r} at {places} only reports the value of the last step, and the "
                f"next step would overwrite it; make it settable with inject_hyperparams, or give "
                f"it to one step with update(..., {key}=...)"
            )
        tree = replaced(tree, new)
    return tree


def _name(part: Part) -> Hashable:
    """Returns the key of a dict or the name of a field; `None` for an element of a sequence."""
    if not part.path:
        return None
    key = part.path[-1]
    return key.key if isinstance(key, jax.tree_util.DictKey) else getattr(key, "name", None)


def _class_name(node: PyTree) -> str | None:
    """Returns the name of the class of a NamedTuple or dataclass that is not empty."""
    named = hasattr(node, "_fields") or dataclasses.is_dataclass(node)
    return type(node).__name__ if named and children(node)[0] else None


def _matches(tree: PyTree, key: Hashable, filtering: Filter | None) -> list[Part]:
    """Returns the parts with a name, upper ones before those below them."""
    if key is None:
        return []
    every = list(walk(tree, deep=True))
    found = [part for part in every if _class_name(part.value) == key]
    found += _near_first([part for part in every if _name(part) == key], every)
    return [m for m in found if filtering is None or filtering(m.path, m.value)]


def _near_first(found: list[Part], every: list[Part]) -> list[Part]:
    if len(found) < 2:
        return found
    order = {part.path: i for i, part in enumerate(every)}

    def nearness(part: Part) -> list[tuple[bool, int]]:
        steps = range(1, len(part.path) + 1)
        return [(n < len(part.path), order[part.path[:n]]) for n in steps]

    return sorted(found, key=nearness)


def _only_reports(part: Part) -> bool:
    return part.role.kind == "rate"


def _preferred(found: list[Part]) -> list[Part]:
    return [m for m in found if not (m.role.repeats or _only_reports(m))] or found


def _stored_alike(new: PyTree, old: PyTree) -> PyTree:
    olds, treedef = jax.tree.flatten(old, is_leaf=is_coded)
    news, given = jax.tree.flatten(new, is_leaf=is_coded)
    if any(map(is_coded, olds)) and treedef == given:
        return treedef.unflatten(
            o.with_value(x) if is_coded(o) and isinstance(x, (jax.Array, np.ndarray)) else x
            for o, x in zip(olds, news, strict=True)
        )
    if not isinstance(new, (int, float, complex)) or not isinstance(old, jax.Array):
        return new
    if old.shape or not jnp.issubdtype(old.dtype, jnp.number):
        return new
    return jnp.asarray(new, old.dtype) if jnp.result_type(new, old.dtype) == old.dtype else new


def _told(path: Path) -> str:
    """Returns a path in Python's notation, with the class of a field."""
    keys = [f".{k.name}" if isinstance(k, NamedTupleKey) else str(k) for k in path]
    owner = f" of {path[-1].tuple_name}" if path and isinstance(path[-1], NamedTupleKey) else ""
    return ("".join(keys) or "the root") + owner


def _names(tree: PyTree) -> list[str]:
    every = list(walk(tree, deep=True))
    names = [name for part in every for name in (_name(part), _class_name(part.value))]
    return sorted({str(name) for name in names if name is not None})
