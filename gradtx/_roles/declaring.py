"""Declarations of the roles of a state's fields, by the classes of states.

If a class declares nothing, and gradtx has a state class of the same name, as for optax's states,
the declaration of the latter is used for fields of the same names. Otherwise fields with usual
names, such as `count`, have their usual roles. For other fields the role is unknown, and their
structure is used.
"""

import contextlib
import dataclasses
import re
import sys
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gradtx._roles.kinds import UNKNOWN, USUAL, Role, Told
from gradtx.engine.base import PyTree

C = TypeVar("C", bound=type)


@dataclasses.dataclass(frozen=True)
class Declaration:
    """The declaration of a class of states.

    Attributes:
      piece: the name of the piece that has this state.
      roles: a mapping from fields to roles.
    """

    piece: str
    roles: Mapping[str, Role]

    def role(self, field: str) -> Role:
        """Returns the role of a field."""
        return self.roles.get(field, UNKNOWN)


_NAMESAKES: dict[str, Declaration] = {}
_KNOWN: weakref.WeakKeyDictionary[type, Declaration | None] = weakref.WeakKeyDictionary()


def declared(state: C) -> C:
    """Registers the roles of a class of states, also for classes of this name in other libraries.

    Args:
      state: a NamedTuple; each of its fields has a role.

    Raises:
      TypeError: a field has no role.
    """
    return declared_as(_piece_name(state.__name__))(state)


def declared_as(piece: str) -> Callable[[C], C]:
    """Returns a decorator like `declared` for a class that is not named after its piece.

    Args:
      piece: the name of the piece.
    """

    def declare(state: C) -> C:
        roles = _own_roles(state)
        if missing := [name for name in _fields(state) if name not in roles]:
            raise TypeError(f"{state.__name__}: needs roles for {missing}; see gradtx._roles")
        _NAMESAKES[state.__name__] = Declaration(piece, roles)
        return state

    return declare


def declaration_of(node: PyTree) -> Declaration | None:
    """Returns the declaration of the class of a state; `None` if it is not the state of a piece.

    A state is a NamedTuple or a dataclass with roles for its fields, or with the name of a state of
    gradtx, or with a name that ends in `State`.

    Args:
      node: a node of a pytree.
    """
    return declaration_of_class(type(node))


def declaration_of_class(state: type) -> Declaration | None:
    """Returns the declaration of a class of states, see `declaration_of`.

    Args:
      state: the class.
    """
    if not (hasattr(state, "_fields") or dataclasses.is_dataclass(state)):
        return None
    if state not in _KNOWN:
        _KNOWN[state] = _declaration(state)
    return _KNOWN[state]


def _declaration(state: type) -> Declaration | None:
    own, namesake = _own_roles(state), _NAMESAKES.get(state.__name__)
    if not own and namesake is None and not state.__name__.endswith("State"):
        return None
    said = own or (namesake.roles if namesake else {})
    roles = {name: said.get(name) or USUAL.get(name, UNKNOWN) for name in _fields(state)}
    return Declaration(namesake.piece if namesake else _piece_name(state.__name__), roles)


def _fields(state: Any) -> tuple[str, ...]:
    if hasattr(state, "_fields"):
        return state._fields
    return tuple(field.name for field in dataclasses.fields(state))


def _own_roles(state: type) -> dict[str, Role]:
    found = {}
    for name, hint in _hints(state).items():
        said = getattr(hint, "__metadata__", ())
        for role in (x for x in said if isinstance(x, Role)):
            told = [x.name for x in said if isinstance(x, Told)]
            found[name] = dataclasses.replace(role, told=told[-1]) if told else role
    return found


def _hints(state: type) -> dict[str, Any]:
    """Returns the types of a class's fields; types in strings only if they can be evaluated."""
    try:
        return typing.get_type_hints(state, include_extras=True)
    except Exception:  # one of them may be imported for type checkers only
        seen, found = vars(sys.modules[state.__module__]), {}
    for name, hint in vars(state).get("__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: hint})
        with contextlib.suppress(Exception):
            found |= typing.get_type_hints(alone, seen, include_extras=True)
    return found


def _piece_name(state: str) -> str:
    """Returns the name of a piece: `scale_by_adam` for `ScaleByAdamState`."""
    words = state.removesuffix("State")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=By)(?=[A-Z])", "_", words).lower()
