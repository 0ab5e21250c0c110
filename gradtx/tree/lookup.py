"""Finding and replacing parts of a state by name.

A name is a field of a NamedTuple or a dataclass, a key of a dict, or the class of a state.

What one looks for is often said more than once. Every optimizer ends in a state that counts its own
steps and tells the learning rate of the last one; a user who asks for the `count` of Adam, or for
the `learning_rate` that was injected, means another place. The roles of fields say so, see
`gradtx.engine.roles`: a `Clock` repeats what other parts count too; all agree, and any of them will
do. A `Rate` only tells what a step used, and the next overwrites it.

The lookup takes such a field where nothing else has the name, and not otherwise. `set` gives the
fields that repeat the new value too, so that all go on agreeing, and leaves readings alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.tree.walking import NamedTupleKey, Part, Path, children, replaced, walk

Filter = Callable[[Path, Any], Any]


def get_all_with_path(
    tree: Any, key: Any, filtering: Filter | None = None
) -> list[tuple[Path, Any]]:
    """Gives everything that has a name, with its path.

    Args:
      tree: a pytree, such as a state.
      key: a field of a NamedTuple or dataclass, a key of a dict, or the name of a state's class.
      filtering: `filtering(path, value) -> bool` says which matches count. A path is a tuple of
        `NamedTupleKey` and of JAX's keys (`DictKey`, `SequenceKey`, `GetAttrKey`). Default: `None`,
        all count.

    Returns:
      Pairs `(path, value)`. Fields that only repeat or report what other parts of a state hold (see
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


def get(tree: Any, key: Any, default: Any | None = None, filtering: Filter | None = None) -> Any:
    """Gives what has a name.

    Args:
      tree: a pytree, such as a state.
      key: a field of a NamedTuple or dataclass, a key of a dict, or the name of a state's class.
      default: what to give if nothing has the name. Default: `None`.
      filtering: `filtering(path, value) -> bool` says which matches count; see
        `get_all_with_path`. Default: `None`, all count.

    Raises:
      KeyError: several things have the name; the message tells their paths. What only repeats or
        reports another does not count among them.

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
        raise KeyError(f"tree.get: {key!r} stands at {places}; choose one with filtering=")
    return found[-1].value


def set(tree: Any, filtering: Filter | None = None, /, **kwargs: Any) -> Any:
    """Gives a copy of a tree in which everything that has a name is replaced.

    Args:
      tree: a pytree, such as a state.
      filtering: `filtering(path, value) -> bool` says which matches are replaced; see
        `get_all_with_path`. Default: `None`, all are.
      **kwargs: from names to new values, in their order. A Python number takes the dtype of the
        array that it replaces, if that can hold it, so that nothing compiles again.

    Raises:
      KeyError: nothing has the name, or only the reading of what a step used, which the next step
        would overwrite.

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
            some = "that passes the filter " if filtering is not None else ""
            raise KeyError(f"tree.set: nothing {some}is named {key!r}; there are {_names(tree)}")
        new = {m.path: _of_same_dtype(value, m.value) for m in found if not _only_tells(m)}
        if not new:
            places = ", ".join(_told(match.path) for match in found)
            raise KeyError(
                f"tree.set: {key!r} at {places} only tells what a step used, and the next step "
                f"would overwrite it; make it settable with inject_hyperparams, or give it to one "
                f"step with update(..., {key}=...)"
            )
        tree = replaced(tree, new)
    return tree


def _name(part: Part) -> Any:
    """Gives the key of a dict, or the name of a field; `None` where a number leads."""
    if not part.path:
        return None
    key = part.path[-1]
    return key.key if isinstance(key, jax.tree_util.DictKey) else getattr(key, "name", None)


def _class_name(node: Any) -> str | None:
    """Gives the name of a NamedTuple's or a dataclass's class, if something is in it."""
    named = hasattr(node, "_fields") or dataclasses.is_dataclass(node)
    return type(node).__name__ if named and children(node)[0] else None


def _matches(tree: Any, key: Any, filtering: Filter | None) -> list[Part]:
    """Gives what has a name, what is near before what is below it."""
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


def _only_tells(part: Part) -> bool:
    return part.role.kind == "rate"


def _preferred(found: list[Part]) -> list[Part]:
    return [m for m in found if not (m.role.repeats or _only_tells(m))] or found


def _of_same_dtype(new: Any, old: Any) -> Any:
    if not isinstance(new, (int, float, complex)) or not isinstance(old, jax.Array):
        return new
    if old.shape or not jnp.issubdtype(old.dtype, jnp.number):
        return new
    return jnp.asarray(new, old.dtype) if jnp.result_type(new, old.dtype) == old.dtype else new


def _told(path: Path) -> str:
    """Writes a path as one would write it in Python, and says of which class a field is."""
    keys = [f".{k.name}" if isinstance(k, NamedTupleKey) else str(k) for k in path]
    owner = f" of {path[-1].tuple_name}" if path and isinstance(path[-1], NamedTupleKey) else ""
    return ("".join(keys) or "the root") + owner


def _names(tree: Any) -> list[str]:
    every = list(walk(tree, deep=True))
    names = [name for part in every for name in (_name(part), _class_name(part.value))]
    return sorted({str(name) for name in names if name is not None})
