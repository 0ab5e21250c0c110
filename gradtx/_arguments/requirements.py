"""The check of a factory's arguments by its annotations and the table of ranges."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx._arguments.descriptions import described, name_of
from gradtx._arguments.ranges import FLOATING, NUMBER, RANGES, SCHEDULED, Range
from gradtx._arguments.similar import near

P = ParamSpec("P")
R = TypeVar("R")

TRANSFORMATION = "a transformation (a pair of init and update)"


class Requirement(NamedTuple):
    """The requirement of one argument.

    Attributes:
      accepts: `accepts(x)`, a function that returns whether a value is valid.
      kind: the kind of valid values, for error messages.
      range: the range of valid numbers, or `None` if the argument is not a number.
    """

    accepts: Callable[[object], bool]
    kind: str
    range: Range | None = None


class Requirements:
    """The requirements of a factory's arguments.

    Args:
      factory: the factory; its annotations are read.
      name: its name in error messages.
      ranges: the ranges of arguments whose names mean something else here than in `RANGES`; an
        argument with `None` may be anything.
      schedulable: whether `inject_hyperparams` can replace numbers by schedules. Default: True.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        name: str,
        ranges: Mapping[str, Range | None],
        schedulable: bool = True,
    ):
        self.name, self.schedulable = name, schedulable
        self._factory, self._ranges = factory, ranges

    # Read when they are needed first: importing gradtx defines 300 factories, and uses none.

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The factory's signature."""
        return inspect.signature(self._factory)

    @functools.cached_property
    def of(self) -> dict[str, Requirement]:
        """The requirements by the names of arguments, without those that may be anything."""
        found: dict[str, Requirement] = {}
        for n, p in self.signature.parameters.items():
            free = self._ranges.get(n, NUMBER) is None
            required = None if free else _requirement(n, p.annotation, self._ranges.get(n))
            if required is not None:
                found[n] = required
        return found

    @functools.cached_property
    def order(self) -> list[str]:
        """The names of arguments that may be given by position."""
        parameters = self.signature.parameters.items()
        return [n for n, p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    @functools.cached_property
    def _defaults(self) -> dict[str, object]:
        return {n: p.default for n, p in self.signature.parameters.items()}

    @functools.cached_property
    def _takes_any_name(self) -> bool:
        return any(p.kind is p.VAR_KEYWORD for p in self.signature.parameters.values())

    @functools.cached_property
    def _positions(self) -> list[tuple[str, Requirement | None]]:
        return [(n, self.of.get(n)) for n in self.order]

    def check(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Raises unless all arguments of a call are valid.

        Args:
          args: the positional arguments.
          kwargs: the keyword arguments.

        Raises:
          TypeError: an argument is of a wrong kind, or there is none of a name.
          ValueError: an argument is out of its range, or a string is not among the options.
        """
        for (name, required), x in zip(self._positions, args, strict=False):
            if required is not None and not required.accepts(x):
                self._refuse(name, required, x)
        for name, x in kwargs.items():
            required = self.of.get(name)
            if required is None:
                if name not in self._defaults and not self._takes_any_name:
                    self._refuse_name(name)
            elif not required.accepts(x):
                self._refuse(name, required, x)

    def _refuse_name(self, name: str) -> None:
        known = [n for n in self._defaults if n != "self"]
        way_out = "".join(f"did you mean {n}?" for n in near(name, known))
        way_out = way_out or f"the arguments are {', '.join(known)}"
        raise TypeError(f"{self.name}: no argument is named {name}; {way_out}")

    def _refuse(self, name: str, required: Requirement, x: Any) -> None:
        if x is self._defaults[name]:
            return
        if required.range is not None and _is_number(x):
            told = required.range.told
            way_out = required.range.way_out if x < required.range.low else ""
            raise ValueError(_sentence(self.name, name, told, str(x), way_out))
        kind = f"be {required.kind}" + (" or None" if self._defaults[name] is None else "")
        if isinstance(x, str) and required.kind.startswith("one of"):
            raise ValueError(_sentence(self.name, name, kind, repr(x), ""))
        raise TypeError(_sentence(self.name, name, kind, described(x), self._way_out(name, x)))

    def _way_out(self, name: str, x: object) -> str:
        required = self.of[name]
        if required.kind == TRANSFORMATION:
            if callable(x):
                return f"call it: {name_of(x)}(...)"
            return f"the order of arguments is {self.name}({', '.join(self.order)})"
        if required.range is not None and callable(x) and self.schedulable:
            if (other := SCHEDULED.get((self.name, name))) is not None:
                return f"to schedule it, use {other}(schedule)"
            # Most whole numbers are lengths of arrays and loops, which cannot change.
            if not required.range.whole:
                return f"to schedule it, use inject_hyperparams({self.name})(..., {name}=schedule)"
        if name == "learning_rate" and (isinstance(x, Mapping) or hasattr(x, "shape")):
            return "parameters are given to init(params)"
        return ""


def require_transformation(x: object, what: str) -> None:
    """Raises unless a value is a transformation.

    Args:
      x: the value.
      what: its name in the error message.

    Raises:
      TypeError: it is not.
    """
    if not _is_transformation(x):
        way_out = f"; call it: {name_of(x)}(...)" if callable(x) else ""
        if isinstance(x, (list, tuple)):
            way_out = "; write chain(*list)"
        raise TypeError(f"{what} must be {TRANSFORMATION}, got {described(x)}{way_out}")


def checked(
    factory: Callable[P, R], *, name: str = "", ranges: Mapping[str, Range | None] | None = None
) -> Callable[P, R]:
    """Decorates a function so that its arguments are checked.

    Args:
      factory: the function.
      name: its name in error messages. Default: its own.
      ranges: ranges of its arguments instead of those in the table. Default: none.

    Raises:
      TypeError: by the decorated function: an argument is of a wrong kind.
      ValueError: by the decorated function: an argument is out of its range.

    Example:
      >>> from gradtx._arguments import checked
      >>> @checked
      ... def half(b1: float):
      ...     return b1 / 2
      >>> half(1.5)
      Traceback (most recent call last):
      ...
      ValueError: half: b1 must be in [0, 1), got 1.5
    """
    requirements = Requirements(factory, name or factory.__name__, ranges or {})

    @functools.wraps(factory)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        requirements.check(args, kwargs)
        return factory(*args, **kwargs)

    vars(call)["requirements"] = requirements
    return call


def _sentence(factory: str, name: str, needed: str, given: str, way_out: str) -> str:
    return f"{factory}: {name} must {needed}, got {given}" + (f"; {way_out}" if way_out else "")


# ---- What an annotation admits ----------------------------------------------------------------


def _requirement(name: str, annotation: object, own: Range | None) -> Requirement | None:
    """Returns what an argument must be, or `None` if it may be anything."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = typing.get_args(annotation) if union else (annotation,)
    optional = type(None) in parts
    schedules = [x for x in parts if typing.get_origin(x) is Callable]
    rest = [x for x in parts if x not in schedules and x is not type(None)]
    if not rest:
        return Requirement(lambda x: callable(x) or (x is None and optional), "a function")
    if typing.get_origin(annotation) is tuple:
        each = [_requirement(name, item, own) for item in typing.get_args(annotation)]
        return _tuple_of(each)
    if typing.get_origin(annotation) is Literal:
        options = typing.get_args(annotation)
        known = ", ".join(map(repr, options))
        return Requirement(lambda x: isinstance(x, str) and x in options, f"one of {known}")
    if rest == [bool]:
        return Requirement(_is_flag, "True or False")
    if rest == [type]:
        return Requirement(
            lambda x: _is_named_tuple(x) or (x is None and optional), "a NamedTuple class"
        )
    if float in rest and all(x in _NUMBERS for x in rest):
        return _number(own or RANGES.get(name, NUMBER), bool(schedules), optional)
    if rest == [int]:
        within = own or RANGES.get(name)
        return _number(within, bool(schedules), optional) if within else _integer(optional)
    if np.dtype in rest:
        return _dtype(optional) if name in FLOATING else None
    if typing.get_origin(rest[0]) is Mapping and _is_transformation(typing.get_args(rest[0])[1]):
        return Requirement(lambda x: isinstance(x, Mapping), "a mapping to transformations")
    if all(_is_transformation(x) for x in rest):
        return Requirement(
            lambda x: _is_transformation(x) or (x is None and optional), TRANSFORMATION
        )
    return None


_NUMBERS = (float, int, np.number, np.ndarray, jax.Array)
_NO_NUMBERS = (str, bytes, Mapping, Sequence, Set, complex)


def _number(within: Range, schedule: bool, optional: bool) -> Requirement:
    has, low, high, whole = within.has, within.low, within.high, within.whole

    def accepts(x: object) -> bool:
        if type(x) is float and not whole:
            return low <= x <= high
        if x is None or x is True:
            return optional and x is None
        if isinstance(x, (int, float)):
            return has(x)
        if isinstance(x, _NO_NUMBERS):
            return False
        if isinstance(x, Tracer):
            return True
        if isinstance(x, (jax.Array, np.ndarray, np.generic)):
            return x.ndim == 0 and _has_value(has, x)
        return schedule or not callable(x)

    told = "a number, a scalar array or a schedule" if schedule else "a number or a scalar array"
    return Requirement(accepts, told, within)


def _has_value(has: Callable[[float], bool], x: jax.Array | np.ndarray | np.generic) -> bool:
    """Returns whether the value of a scalar array is valid, or cannot be read."""
    if isinstance(x, jax.Array):
        if x.is_deleted() or not x.is_fully_addressable:
            return True
        x = jax.device_get(x)  # an explicit transfer, which transfer guards allow
    x = x.item()
    return isinstance(x, (int, float)) and has(x)


def _is_number(x: object) -> bool:
    """Returns whether a value that has been refused is a real number or scalar."""
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        kinds = (jnp.floating, jnp.integer)
        return x.ndim == 0 and any(jnp.issubdtype(x.dtype, kind) for kind in kinds)
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _integer(optional: bool) -> Requirement:
    """Returns the requirement of an integer without a range, such as an axis or a seed."""

    def accepts(x: object) -> bool:
        if isinstance(x, jax.Array):  # a seed, perhaps traced
            return x.ndim == 0 and jnp.issubdtype(x.dtype, jnp.integer)
        if isinstance(x, (int, np.integer)):
            return not isinstance(x, bool)
        return x is None and optional

    return Requirement(accepts, "an integer")


def _tuple_of(each: list[Requirement | None]) -> Requirement | None:
    """Returns the requirement of a tuple of numbers in one range."""
    numbers = [x for x in each if x is not None and x.range is not None]
    if len(numbers) < len(each) or len({x.range for x in numbers}) != 1:
        return None

    def accepts(x: object) -> bool:
        if isinstance(x, jax.Array):
            return True
        if not isinstance(x, (Sequence, np.ndarray)):
            return False
        return len(x) == len(numbers) and all(map(_accepts, numbers, x))

    told = numbers[0].range.told if numbers[0].range else ""
    return Requirement(accepts, f"a tuple of {len(each)} numbers, each of which must {told}")


def _accepts(required: Requirement, x: object) -> bool:
    return required.accepts(x)


def _is_flag(x: object) -> bool:
    if isinstance(x, (bool, np.bool_, jax.Array)):
        return True
    return isinstance(x, (int, np.integer)) and x in (0, 1)


def _is_named_tuple(x: object) -> bool:
    return isinstance(x, type) and issubclass(x, tuple) and hasattr(x, "_fields")


def _dtype(optional: bool) -> Requirement:
    def accepts(x: Any) -> bool:
        if x is None:
            return optional
        try:
            return jnp.issubdtype(jnp.dtype(x), jnp.inexact)
        except (TypeError, ValueError):
            return False

    return Requirement(accepts, "a floating dtype")


def _is_transformation(x: object) -> bool:
    return hasattr(x, "init") and hasattr(x, "update")
