"""Iteration over the parts of a state, with their roles and paths."""

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from gradtx._roles import UNKNOWN, Declaration, Kind, Role, declaration_of
from gradtx.engine.base import PyTree, PyTreeDef

Path = tuple[Any, ...]
Names = tuple[str, ...]

WEAKER: tuple[Kind, ...] = ("slot", "statistic", "unknown")
"""The kinds that a slot can have because of the states around it, the strongest first."""


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """A key of a path: the field of a NamedTuple.

    Attributes:
      tuple_name: the name of the NamedTuple's class.
      name: the name of the field.
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


class Part(NamedTuple):
    """A node of a state, with its path and role.

    Attributes:
      path: the keys that lead to it.
      value: the array, or the pytree of arrays.
      whole: whether there is no state below it, so that it is a field or a bare pytree.
      scope: the labels, names and fields that lead to the piece.
      piece: the name of the piece whose field it is; empty if it belongs to none.
      field: the name of the field, or empty.
      role: the role of the field.
      slots: the kind of a slot there; see `gradtx._roles.Role`.
      of: the keys that lead to the part of the parameters to which it belongs.
      around: the states that contain it, from the outermost to the innermost, with their scopes.
    """

    path: Path
    value: PyTree
    whole: bool
    scope: Names = ()
    piece: str = ""
    field: str = ""
    role: Role = UNKNOWN
    slots: Kind = "slot"
    of: Names = ()
    around: tuple[tuple[Names, PyTree], ...] = ()

    @property
    def kind(self) -> Kind:
        """The kind of the field, given the states around it."""
        return weaker(self.role.kind, self.slots) if self.role.kind in WEAKER else self.role.kind

    @property
    def owner(self) -> Declaration | None:
        """The declaration of the innermost state around it."""
        return declaration_of(self.around[-1][1]) if self.around else None


def walk(state: PyTree, *, deep: bool = False) -> Iterator[Part]:
    """Yields the nodes of a state, each before its children, in the order of the leaves.

    Args:
      state: any pytree; states of gradtx, of optax and of others may be anywhere in it.
      deep: whether to yield the nodes below the whole parts as well. Default: False.
    """
    return _walk(Part((), state, not holds_states(state)), Counter(), deep)


def parts(state: PyTree) -> list[Part]:
    """Returns the fields and bare pytrees with the arrays of a state, in the order of its leaves.

    Args:
      state: any pytree; states of gradtx, of optax and of others may be anywhere in it.

    Raises:
      TypeError: `state` is a transformation.
    """
    if isinstance(state, tuple) and hasattr(state, "init") and hasattr(state, "update"):
        raise TypeError("the state of a transformation is needed, tx.init(params), got tx itself")
    return [part for part in walk(state) if part.whole]


def replaced(node: PyTree, new: Mapping[Path, PyTree]) -> PyTree:
    """Returns a copy of a pytree with other nodes at some paths.

    Args:
      node: the pytree.
      new: a mapping from paths, as those of `walk`, to the new nodes.
    """
    if () in new:
        return new[()]
    by_key: dict[Hashable, dict[Path, PyTree]] = {}
    for (key, *path), value in new.items():
        by_key.setdefault(key, {})[tuple(path)] = value
    below, treedef = children(node)
    return treedef.unflatten(
        replaced(child, by_key[key]) if key in by_key else child for key, child in below
    )


def children(node: PyTree) -> tuple[list[tuple[Hashable, PyTree]], PyTreeDef]:
    """Returns the children of a node with their keys, and the structure of the node.

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


def holds_states(node: PyTree) -> bool:
    """Returns whether a node is the state of a piece, or contains one."""
    return any(map(_is_state, jax.tree.leaves(node, is_leaf=_is_state)))


def key_name(key: Hashable) -> str:
    """Returns one of JAX's keys as a part of a name."""
    for field in ("key", "name", "idx"):
        if hasattr(key, field):
            return str(getattr(key, field))
    return str(key)


def path_name(path: Path) -> str:
    """Returns a path of JAX's keys as a name: `layer/kernel`, `blocks/0/bias`."""
    return "/".join(map(key_name, path))


def weaker(*kinds: Kind) -> Kind:
    """Returns the weakest of several kinds, that of a slot inside several states."""
    return max(kinds, key=WEAKER.index)


def _is_state(node: PyTree) -> bool:
    return declaration_of(node) is not None


def _walk(part: Part, pieces: Counter[tuple[Names, str]], deep: bool) -> Iterator[Part]:
    yield part
    if part.whole:
        below = children(part.value)[0] if deep else ()
        for key, child in below:
            yield from _walk(Part((*part.path, key), child, True), pieces, True)
        return
    declared = declaration_of(part.value)
    for inner in _within(part) if declared is None else _fields(part, declared, pieces):
        yield from _walk(inner, pieces, deep)


def _within(part: Part) -> Iterator[Part]:
    """Yields the children of a container of states, such as a chain or a dict of labels."""
    for key, child in children(part.value)[0]:
        holds = holds_states(child)
        numbered = holds and isinstance(key, jax.tree_util.SequenceKey)
        scope = part.scope if numbered else (*part.scope, key_name(key))
        path = (*part.path, key)
        yield part._replace(path=path, value=child, whole=not holds, scope=scope, role=UNKNOWN)


def _fields(
    part: Part, declared: Declaration, pieces: Counter[tuple[Names, str]]
) -> Iterator[Part]:
    """Yields the fields of a state."""
    name = ""
    around = (*part.around, (part.scope, part.value))
    for key, child in children(part.value)[0]:
        field = key_name(key)
        role = declared.role(field)
        whole = role.kind not in ("inner", "unknown") or not holds_states(child)
        if whole:
            name = name or _numbered(declared.piece, pieces, part.scope)
            if role.kind == "inner":  # it is not the state of a piece
                role = UNKNOWN
            scope = part.scope
        else:
            hidden = role.kind == "inner" and role.told is None
            scope = part.scope if hidden else (*part.scope, field)
        yield Part(
            (*part.path, key),
            child,
            whole,
            scope,
            name if whole else "",
            field if whole else "",
            role,
            weaker(part.slots, role.slots),
            (*part.of, role.of) if role.of else part.of,
            around,
        )


def _numbered(name: str, taken: Counter[tuple[Names, str]], within: Names) -> str:
    taken[within, name] += 1
    return name if taken[within, name] == 1 else f"{name}#{taken[within, name]}"
