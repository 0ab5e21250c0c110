"""What the fields of a state are, said once, in their types.

    @declared
    class ScaleByAdamState(NamedTuple):
        count: Count
        mu: Slot
        nu: Slot

All that reads states goes by this: names in a file, hyperparameters and metrics, the memory of each
parameter, `gradtx.tree.get` and `map_params`, and whatever stores or places arrays by their kind.

A field is one of these:

- `Slot`: a tree like the parameters, each array of the shape of its parameter: moments, copies,
  gathered gradients. The dtype may be another.
- `Statistic`: a tree like the parameters whose arrays have other shapes, one or several for each
  parameter: numbers, rows and columns, projections, histories with an axis in front.
- `Shared`: what belongs to no parameter and has no role below.
- `Count`: a number of steps; `Clock`: one that repeats what other parts of a state count too, as
  all agree.
- `Rate`: the learning rate that the last step used. It only tells; the next step overwrites it.
- `Hyperparameter`: a number that the method goes by, given to it or estimated by it.
- `RandomKey`: a random key, or its data.
- `Reading`: what nothing depends on, kept for people to see.
- `Inner`: the state of what is wrapped, or a dict or tuple of such. `Projected`: the state of what
  sees the parameters in other shapes, so that its slots are statistics. `Aside`: the states of what
  may work on something else than the parameters.

`Annotated[Hyperparameter, Told("lower_bound")]` gives a field the name under which
`gradtx.hyperparams` and `gradtx.metrics` tell it; they tell `Hyperparameter` and `Reading` anyway,
and others if they are `Told`. With `Told("*")` what is in the field is told under its own names.
The field of an `Inner` state that is `Told()` is in the names of what is inside.

A class that says nothing is read like this: if gradtx has a state of its name, as for optax's
classes, that one's declaration holds for fields of the same names; then some names speak for
themselves, as `count`; of others it is not known what they are, and their structure decides.
"""

import contextlib
import dataclasses
import re
import sys
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from gradtx.engine.base import Array, OptState, Params

C = TypeVar("C", bound=type)

Kind = Literal[
    "slot",
    "statistic",
    "shared",
    "count",
    "rate",
    "hyperparameter",
    "key",
    "reading",
    "inner",
    "unknown",
]


@dataclasses.dataclass(frozen=True)
class Role:
    """What a field of a state is.

    Attributes:
      kind: see the module.
      told: the name under which people are told it, `""` for the field's own, `"*"` for those of
        what is in it; `None` if they are not.
      repeats: whether it repeats what other parts of a state say too, and all agree.
      slots: for an inner state, what its slots are to the parameters; `"unknown"` if it may be the
        state of something else.
      of: for an inner state, the part of the parameters that it is for; empty if it is for all.
    """

    kind: Kind
    told: str | None = None
    repeats: bool = False
    slots: Kind = "slot"
    of: str = ""


@dataclasses.dataclass(frozen=True)
class Told:
    """Under which name people are told a field.

    Attributes:
      name: the name; `"*"` for the names of what is in the field. Default: the field's own.
    """

    name: str = ""


Slot = Annotated[Params, Role("slot")]
Statistic = Annotated[Params, Role("statistic")]
Shared = Annotated[Array, Role("shared")]
Count = Annotated[Array, Role("count")]
Clock = Annotated[Array, Role("count", repeats=True)]
Rate = Annotated[Array, Role("rate")]
Hyperparameter = Annotated[Array, Role("hyperparameter", told="")]
RandomKey = Annotated[Array, Role("key")]
Reading = Annotated[Array, Role("reading", told="")]
Inner = Annotated[OptState, Role("inner")]
Projected = Annotated[OptState, Role("inner", slots="statistic")]
Aside = Annotated[OptState, Role("inner", told="", slots="unknown")]

UNKNOWN = Role("unknown")

KEPT: Any = None
"""The default of a field that the engine fills in."""

USUAL: Mapping[str, Role] = {
    "count": Role("count"),
    "rng_key": Role("key"),
    "learning_rate": Role("hyperparameter", told=""),
    **dict.fromkeys(
        ("inner_state", "inner_states", "inner_opt_state", "base_optimizer_state", "opt_state"),
        Role("inner"),
    ),
}
"""What fields of these names are where nobody says."""


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What a class of states says of itself.

    Attributes:
      piece: what the piece is called whose states these are.
      roles: from fields to roles.
    """

    piece: str
    roles: Mapping[str, Role]

    def role(self, field: str) -> Role:
        """Gives the role of a field."""
        return self.roles.get(field, UNKNOWN)


_NAMESAKES: dict[str, Declaration] = {}
_KNOWN: weakref.WeakKeyDictionary[type, Declaration | None] = weakref.WeakKeyDictionary()


def declared(state: C) -> C:
    """Lets a class of states speak for other libraries' classes of its name, too.

    Args:
      state: a NamedTuple; each of its fields has a role.

    Raises:
      TypeError: a field has none.
    """
    return declared_as(_piece_name(state.__name__))(state)


def declared_as(piece: str) -> Callable[[C], C]:
    """Makes a decorator as `declared` is, for a class that is not called after its piece.

    Args:
      piece: what the piece is called.
    """

    def declare(state: C) -> C:
        roles = _own_roles(state)
        if missing := [name for name in _fields(state) if name not in roles]:
            raise TypeError(f"{state.__name__}: {missing} have no role; see gradtx.engine.roles")
        _NAMESAKES[state.__name__] = Declaration(piece, roles)
        return state

    return declare


def declaration_of(node: Any) -> Declaration | None:
    """Gives what the class of a state says of its fields; `None` for what is no piece's state.

    A state is a NamedTuple or a dataclass that gives roles to its fields, or has the name of a
    state of gradtx, or a name that ends in `State`.

    Args:
      node: a node of a pytree.
    """
    state = type(node)
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
    """Gives the types of a class's fields; those that stand as strings, if they can be seen."""
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
    """Makes `scale_by_adam` of `ScaleByAdamState`."""
    words = state.removesuffix("State")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=By)(?=[A-Z])", "_", words).lower()
