"""How a piece was made: by which factory, of which arguments.

That is what compiled code is kept by, never the identity of a closure. A `Freezer` turns a piece
into a value without its numbers, which can be hashed and compared; `thaw` makes the piece again, of
the value and of numbers. The numbers are arguments of the compiled code, so that optimizers which
differ in them share it, and a factory runs anew in each trace, so that it may make arrays anywhere.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

from gradtx.engine.base import Schedule
from gradtx.engine.numerics import NeedsConstant, Number
from gradtx.engine.paths import StructureError
from gradtx.engine.rules import LeafError

P = ParamSpec("P")
R = TypeVar("R")

CONSTANTS = (bool, int, complex, str, bytes, type, np.dtype, type(None))


class Opaque(Exception):
    """Something that is no value: a function of the user's, for one."""


class Frozen(NamedTuple):
    """A value without its numbers.

    Attributes:
      thaw: `thaw(data, source)` makes it again.
      data: what else is needed for that; it can be hashed.
    """

    thaw: Callable[[Any, "Source"], Any]
    data: Any


class Made(NamedTuple):
    """A call of a factory: how something was made.

    Attributes:
      factory: the function that was called.
      given: its positional arguments, and those by name.
    """

    factory: Callable[..., Any]
    given: tuple[tuple[Any, ...], dict[str, Any]]


class Source:
    """What frozen values are thawed from: their numbers, and the calls that were thawed before.

    Args:
      numbers: the numbers, in the order in which they were gathered.
    """

    def __init__(self, numbers: Sequence[Any]):
        self.numbers = iter(numbers)
        self.calls: list[Any] = []


class Freezer:
    """Freezes values, and gathers the numbers that were in them.

    Args:
      constant: whether numbers stay in the values, as constants. Default: they are gathered.
    """

    def __init__(self, constant: bool = False):
        self.constant = constant
        self.numbers: list[Any] = []
        self._calls: list[Made] = []
        self._whole_too = True  # whether whole numbers are gathered

    def freeze(self, x: Any, stand_in: bool = False) -> Frozen:
        """Returns a value frozen.

        Args:
          x: a constant, a number, an array, what a piece or a schedule gave, or a container.
          stand_in: whether what is opaque is replaced by something that cannot be used.

        Raises:
          Opaque: it is, or holds, something else.
        """
        if (
            isinstance(x, CONSTANTS)
            or (self.constant and isinstance(x, (float, np.generic)))
            or (isinstance(x, float) and x.is_integer() and not self._whole_too)
        ):
            # 1 and True are equal, and 0.0 and -0.0
            return Frozen(_constant, (type(x), x, str(x)))
        if isinstance(x, float):
            self.numbers.append(Number.parts(x))
            return Frozen(_number, None)
        if isinstance(x, (jax.Array, np.ndarray, np.generic)) and not self.constant:
            self.numbers.append(x)
            return Frozen(_next, None)
        before = len(self.numbers), len(self._calls)
        try:
            if (pair := getattr(x, "gradient_transformation", None)) is not None:  # MultiSteps
                return self.freeze(pair(), stand_in)
            for known in (x, getattr(x, "update", None)):  # a schedule of ours, a transformation
                if (freeze := getattr(known, "freeze", None)) is not None:
                    return freeze(self)
            parts, treedef = jax.tree.flatten(x, is_leaf=lambda y: y is not x)
            if not parts or parts[0] is not x:
                return Frozen(_container, (treedef, tuple(self.freeze(y, stand_in) for y in parts)))
            raise Opaque(repr(x))
        except Opaque:
            if not stand_in:
                raise
            del self.numbers[before[0] :], self._calls[before[1] :]
            return Frozen(_unusable, None)

    def schedule(self, made: Made) -> Frozen:
        """Returns a schedule frozen; its whole numbers are numbers of steps, and stay exact."""
        before, self._whole_too = self._whole_too, False
        try:
            return self.call(made)
        finally:
            self._whole_too = before

    def call(self, made: Made, stand_in: bool = False) -> Frozen:
        """Returns a call frozen; see `freeze`. A call that comes again is thawed once."""
        for number, before in enumerate(self._calls):
            if before is made:
                return Frozen(_again, number)
        frozen = Frozen(_call, (made.factory, self.freeze(made.given, stand_in)))
        self._calls.append(made)
        return frozen


def is_known(x: Any) -> bool:
    """Says whether a function or another value can be frozen."""
    try:
        Freezer().freeze(x)
    except Opaque:
        return False
    return True


def thaw(frozen: Frozen, source: Source) -> Any:
    """Makes a value again."""
    return frozen.thaw(frozen.data, source)


def _constant(data: tuple[type, Any, str], source: Source) -> Any:
    return data[1]


def _number(data: None, source: Source) -> Number:
    return Number(*next(source.numbers))


def _next(data: None, source: Source) -> Any:
    return next(source.numbers)


def _container(data: tuple[Any, tuple[Frozen, ...]], source: Source) -> Any:
    treedef, parts = data
    return treedef.unflatten([thaw(part, source) for part in parts])


def _call(data: tuple[Callable[..., Any], Frozen], source: Source) -> Any:
    factory, given = data
    args, kwargs = thaw(given, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user was told when the piece was made
        source.calls.append(factory(*args, **kwargs))
    return source.calls[-1]


def _again(data: int, source: Source) -> Any:
    return source.calls[data]


def _unusable(data: None, source: Source) -> Callable[..., Any]:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        raise NeedsConstant("a function that is no value was needed in compiled code")

    return stand_in


class InTurn(Generic[R]):
    """Tries ways to do something until one works, and begins with that one from then on.

    A rule may not be able to do without the value of a number; then the number becomes a constant.

    Args:
      ways: functions of the same arguments.
    """

    def __init__(self, ways: Sequence[Callable[..., R]]):
        self._ways, self.first = ways, 0

    def __call__(self, *args: Any) -> R:
        """Does it."""
        for number in range(self.first, len(self._ways) - 1):
            try:
                result = self._ways[number](*args)
            except (LeafError, StructureError, TypeError, ValueError, AttributeError):
                continue
            self.first = number
            return result
        return self._ways[-1](*args)


class Constant(NamedTuple):
    """An argument whose numbers are constants.

    Attributes:
      value: the argument.
    """

    value: Any

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns it frozen; what is thawed is the argument itself."""
        del freezer
        return Freezer(constant=True).freeze(self.value)


def call_of(
    signature: inspect.Signature, factory: Any, args: Any, kwargs: Any, constants: Sequence[str]
) -> Made:
    """Describes a call, in one form for all ways to write it.

    Args:
      signature: that of the factory.
      factory: the factory.
      args: its positional arguments.
      kwargs: those by name.
      constants: the names of arguments whose numbers are constants.
    """
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    for name in constants:
        bound.arguments[name] = Constant(bound.arguments[name])
    return Made(factory, (bound.args, bound.kwargs))


class MadeSchedule:
    """A schedule that knows how it was made.

    Args:
      schedule: the function of the step count.
      made: how it was made.
    """

    def __init__(self, schedule: Schedule, made: Made):
        self._schedule, self._made = schedule, made
        functools.update_wrapper(self, schedule, updated=())

    def __call__(self, count: Any) -> Any:
        """Returns the value at a step."""
        return self._schedule(count)

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns it frozen."""
        return freezer.schedule(self._made)


def known_schedule(factory: Callable[P, Schedule]) -> Callable[P, Schedule]:
    """Makes a factory of schedules describe what it makes, so that it may run in compiled code.

    Args:
      factory: a function of hyperparameters that returns a pure function of the step count.
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        schedule = factory(*args, **kwargs)
        return MadeSchedule(schedule, call_of(signature, factory, args, kwargs, ()))

    return make
