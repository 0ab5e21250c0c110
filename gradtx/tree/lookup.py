"""Finding and replacing parts of a state by name.

A name is a field of a NamedTuple or a dataclass, a key of a dict, or the class of a state.

What one looks for is often said more than once. Every optimizer ends in a state that counts its own
steps and tells the learning rate of the last one; a user who asks for the `count` of Adam, or for
the `learning_rate` that was injected, means another place. So a state class may say of its fields

- `_repeats = ("count",)`: this repeats what other parts of a state say too; all agree, and any of
  them will do;
- `_readings = ("learning_rate",)`: this only tells what a step used, and the next overwrites it.

The lookup takes such a field where nothing else has the name, and not otherwise. `set` gives the
fields that repeat the new value too, so that all go on agreeing, and leaves readings alone.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Path = tuple[Any, ...]
Filter = Callable[[Path, Any], Any]


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """A step of a path: into a field of a NamedTuple.

    Attributes:
      tuple_name: the name of the NamedTuple's class.
      name: the name of the field.
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


class _Match(NamedTuple):
    path: Path
    value: Any
    repeats: bool = False
    reading: bool = False


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
    if len(found) > 1 and not all(match.repeats for match in found):
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
        paths = {match.path for match in found if not match.reading}
        if not paths:
            places = ", ".join(_told(match.path) for match in found)
            raise KeyError(
                f"tree.set: {key!r} at {places} only tells what a step used, and the next step "
                f"would overwrite it; make it settable with inject_hyperparams, or give it to one "
                f"step with update(..., {key}=...)"
            )
        tree = _replaced(tree, paths, value)
    return tree


def children(node: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """Gives what is directly below a node, with its keys, and how to put it together again.

    Args:
      node: a pytree.
    """
    flat, treedef = jax.tree.flatten_with_path(node, is_leaf=lambda x: x is not node)
    if flat and not flat[0][0]:
        return [], treedef  # a leaf
    keys = [path[0] for path, _ in flat]
    if hasattr(node, "_fields"):
        keys = [NamedTupleKey(type(node).__name__, key.name) for key in keys]
    return [(key, child) for key, (_, child) in zip(keys, flat, strict=True)], treedef


def _name(key: Any) -> Any:
    return key.key if isinstance(key, jax.tree_util.DictKey) else getattr(key, "name", None)


def _walk(node: Any, path: Path = ()) -> Iterator[tuple[Any, _Match]]:
    """Goes through all that has a name, what is near before what is below it."""
    below, _ = children(node)
    if below and (hasattr(node, "_fields") or dataclasses.is_dataclass(node)):
        yield type(node).__name__, _Match(path, node)
    repeats, readings = getattr(node, "_repeats", ()), getattr(node, "_readings", ())
    for key, child in below:
        if (name := _name(key)) is not None:
            yield name, _Match((*path, key), child, name in repeats, name in readings)
    for key, child in below:
        yield from _walk(child, (*path, key))


def _matches(tree: Any, key: Any, filtering: Filter | None) -> list[_Match]:
    found = [match for name, match in _walk(tree) if name == key]
    return [m for m in found if filtering is None or filtering(m.path, m.value)]


def _preferred(found: list[_Match]) -> list[_Match]:
    return [m for m in found if not (m.repeats or m.reading)] or found


def _replaced(node: Any, paths: Any, value: Any, path: Path = ()) -> Any:
    if path in paths:
        return _of_same_dtype(value, node)
    below, treedef = children(node)
    if not below:
        return node
    return treedef.unflatten(_replaced(x, paths, value, (*path, key)) for key, x in below)


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
    return sorted({str(name) for name, _ in _walk(tree)})
