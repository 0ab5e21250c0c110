"""The one way through a state: its parts, what each is, and where it stands."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from gradtx.engine.roles import UNKNOWN, Declaration, Kind, Role, declaration_of

Path = tuple[Any, ...]
Names = tuple[str, ...]

WEAKER: tuple[Kind, ...] = ("slot", "statistic", "unknown")
"""What a slot is to the parameters if the states around it say so, one after another."""


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


class Part(NamedTuple):
    """A node of a state, and where it stands.

    Attributes:
      path: the keys that lead to it.
      value: the array, or the tree of arrays.
      whole: whether no state is below it, so that it is a field or a bare tree.
      scope: the labels, names and fields that lead to the piece.
      piece: the name of the piece whose field it is; empty for what belongs to none.
      field: the name of the field, or empty.
      role: what the field is.
      slots: what a slot is to the parameters there; see `gradtx.engine.roles.Role`.
      of: the keys that lead to the part of the parameters that it is for.
      around: the states that it is in, from the outermost to the nearest, each with its scope.
    """

    path: Path
    value: Any
    whole: bool
    scope: Names = ()
    piece: str = ""
    field: str = ""
    role: Role = UNKNOWN
    slots: Kind = "slot"
    of: Names = ()
    around: tuple[tuple[Names, Any], ...] = ()

    @property
    def kind(self) -> Kind:
        """What it is to the parameters."""
        return weaker(self.role.kind, self.slots) if self.role.kind in WEAKER else self.role.kind

    @property
    def owner(self) -> Declaration | None:
        """What the nearest state around it says of itself."""
        return declaration_of(self.around[-1][1]) if self.around else None


def walk(state: Any, *, deep: bool = False) -> Iterator[Part]:
    """Gives the nodes of a state, each before what is in it, and all in the order of their leaves.

    Args:
      state: any pytree; states of gradtx, of optax and of others may be anywhere in it.
      deep: whether what is below the whole parts is given as well. Default: no.
    """
    return _walk(Part((), state, not holds_states(state)), Counter(), deep)


def parts(state: Any) -> list[Part]:
    """Gives the fields and bare trees that hold the arrays of a state, in the order of its leaves.

    Args:
      state: any pytree; states of gradtx, of optax and of others may be anywhere in it.
    """
    return [part for part in walk(state) if part.whole]


def replaced(node: Any, new: Mapping[Path, Any]) -> Any:
    """Gives a copy of a tree that has other nodes at some paths.

    Args:
      node: the tree.
      new: from paths, as `walk` has them, to what is to stand there.
    """
    if () in new:
        return new[()]
    by_key: dict[Any, dict[Path, Any]] = {}
    for (key, *path), value in new.items():
        by_key.setdefault(key, {})[tuple(path)] = value
    below, treedef = children(node)
    return treedef.unflatten(
        replaced(child, by_key[key]) if key in by_key else child for key, child in below
    )


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


def holds_states(node: Any) -> bool:
    """Says whether a node is the state of a piece, or has one somewhere below it."""
    return any(map(_is_state, jax.tree.leaves(node, is_leaf=_is_state)))


def key_name(key: Any) -> str:
    """Writes one of JAX's keys as a part of a name."""
    for field in ("key", "name", "idx"):
        if hasattr(key, field):
            return str(getattr(key, field))
    return str(key)


def path_name(path: Any) -> str:
    """Writes a path of JAX's keys as a name: `layer/kernel`, `blocks/0/bias`."""
    return "/".join(map(key_name, path))


def weaker(*kinds: Kind) -> Kind:
    """Gives what a slot is to the parameters if several states around it say so."""
    return max(kinds, key=WEAKER.index)


def _is_state(node: Any) -> bool:
    return declaration_of(node) is not None


def _walk(part: Part, pieces: Counter[Any], deep: bool) -> Iterator[Part]:
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
    """Goes through a container in which there are states: a chain, or what has labels."""
    for key, child in children(part.value)[0]:
        holds = holds_states(child)
        numbered = holds and isinstance(key, jax.tree_util.SequenceKey)
        scope = part.scope if numbered else (*part.scope, key_name(key))
        path = (*part.path, key)
        yield part._replace(path=path, value=child, whole=not holds, scope=scope, role=UNKNOWN)


def _fields(part: Part, declared: Declaration, pieces: Counter[Any]) -> Iterator[Part]:
    """Goes through the fields of a state."""
    name = ""
    around = (*part.around, (part.scope, part.value))
    for key, child in children(part.value)[0]:
        field = key_name(key)
        role = declared.role(field)
        whole = role.kind not in ("inner", "unknown") or not holds_states(child)
        if whole:
            name = name or _numbered(declared.piece, pieces, part.scope)
            if role.kind == "inner":  # of what is no piece's state
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


def _numbered(name: str, taken: Counter[Any], within: Names) -> str:
    taken[within, name] += 1
    return name if taken[within, name] == 1 else f"{name}#{taken[within, name]}"
