"""Records of how pieces were made: by which factory, with which arguments.

Compiled code is cached by these records, never by the identity of closures. A `Freezer` converts a
piece to a hashable value without its numbers; `thaw` makes the piece again from the value and the
numbers. The numbers are arguments of the compiled code, so that optimizers which differ only in
them share it. The factory is called again in each trace, so that it may create arrays.
"""

import inspect
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

from gradtx.codecs import Codec
from gradtx.engine.base import PyTree, PyTreeDef
from gradtx.engine.numerics import NeedsConstant, Number
from gradtx.engine.paths import StructureError
from gradtx.engine.rules import LeafError

P = ParamSpec("P")
R = TypeVar("R")

CONSTANTS = (bool, int, complex, str, bytes, type, np.dtype, type(None), Codec)


class Opaque(Exception):
    """Raised if an object, such as a user's function, cannot be frozen."""


class Frozen(NamedTuple):
    """A value without its numbers.

    Attributes:
      thaw: `thaw(data, source)`, the function that makes the value again.
      data: the argument from which it does so, hashable.
    """

    thaw: Callable[[Any, "Source"], Any]
    data: Any


class Made(NamedTuple):
    """A call of a factory.

    Attributes:
      factory: the function that was called.
      given: its positional and its keyword arguments.
    """

    factory: Callable[..., Any]
    given: tuple[tuple[Any, ...], dict[str, Any]]


class Source:
    """The numbers of frozen values that are thawed, and the calls that have been thawed before.

    Args:
      numbers: the numbers, in the order in which they were gathered.
    """

    def __init__(self, numbers: Sequence[PyTree]):
        self.numbers = iter(numbers)
        self.calls: list[Any] = []


class Freezer:
    """Freezes values, and gathers their numbers.

    Args:
      constant: whether numbers remain in the values, as constants. Default: False.
    """

    whole = False  # whether other objects are kept too, as in `gradtx.engine.equality`

    def __init__(self, constant: bool = False):
        self.constant = constant
        self.numbers: list[PyTree] = []
        self._calls: list[Made] = []
        self._integral_too = True  # whether floats with integral values are gathered

    def freeze(self, x: Any, stand_in: bool = False) -> Frozen:
        """Returns the frozen value of an object.

        Args:
          x: a constant, a number, an array, the result of a piece or a schedule, or a container.
          stand_in: whether other objects are replaced by a placeholder that raises when it is used.
            Default: False.

        Raises:
          Opaque: it is, or contains, another object.
        """
        if (
            isinstance(x, CONSTANTS)
            or (self.constant and isinstance(x, (float, np.generic)))
            or (isinstance(x, float) and x.is_integer() and not self._integral_too)
        ):
            # type and string, because 1 and True are equal, and 0.0 and -0.0
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
            for known in (x, getattr(x, "update", None)):  # a schedule or transformation of gradtx
                if (freeze := getattr(known, "freeze", None)) is not None:
                    return freeze(self)
            if type(x) is dict:  # in its own order, which decides among the rules of `by_path`
                keys = tuple((type(key), key) for key in x)
                return Frozen(_dict, (keys, tuple(self.freeze(y, stand_in) for y in x.values())))
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
        """Returns the frozen value of a schedule; its integral floats are counts and stay exact."""
        before, self._integral_too = self._integral_too, False
        try:
            return self.call(made)
        finally:
            self._integral_too = before

    def call(self, made: Made, stand_in: bool = False) -> Frozen:
        """Returns the frozen value of a call; see `freeze`. A repeated call is thawed once."""
        for number, before in enumerate(self._calls):
            if before is made:
                return Frozen(_again, number)
        frozen = Frozen(call, (made.factory, self.freeze(made.given, stand_in)))
        self._calls.append(made)
        return frozen


def is_known(x: Any) -> bool:
    """Returns whether a function or another object can be frozen."""
    try:
        Freezer().freeze(x)
    except Opaque:
        return False
    return True


def thaw(frozen: Frozen, source: Source) -> Any:
    """Returns the value that was frozen, made again."""
    return frozen.thaw(frozen.data, source)


def _constant(data: tuple[type, Any, str], source: Source) -> Any:
    return data[1]


def _number(data: None, source: Source) -> Number:
    return Number(*next(source.numbers))


def _next(data: None, source: Source) -> PyTree:
    return next(source.numbers)


def _container(data: tuple[PyTreeDef, tuple[Frozen, ...]], source: Source) -> PyTree:
    treedef, parts = data
    return treedef.unflatten([thaw(part, source) for part in parts])


def _dict(
    data: tuple[tuple[tuple[type, Hashable], ...], tuple[Frozen, ...]], source: Source
) -> dict[Hashable, Any]:
    keys, parts = data
    return {key: thaw(part, source) for (_, key), part in zip(keys, parts, strict=True)}


def call(data: tuple[Callable[..., Any], Frozen], source: Source) -> Any:
    """Returns the result of a frozen call; see `thaw`."""
    factory, given = data
    args, kwargs = thaw(given, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user was warned when the piece was made
        source.calls.append(factory(*args, **kwargs))
    return source.calls[-1]


def _again(data: int, source: Source) -> Any:
    return source.calls[data]


def _unusable(data: None, source: Source) -> Callable[..., Any]:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        raise NeedsConstant("a function that cannot be frozen was needed in compiled code")

    return stand_in


class InTurn(Generic[R]):
    """Calls the first of several functions that does not raise; later calls begin with that one.

    A rule may need the value of a number; then the next function has it as a constant.

    Args:
      ways: functions of the same arguments.
    """

    def __init__(self, ways: Sequence[Callable[..., R]]):
        self._ways, self.first = ways, 0

    def __call__(self, *args: Any) -> R:
        """Returns the result of the first function that does not raise."""
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
        """Returns its frozen value, which is thawed to the argument itself."""
        return (freezer if freezer.whole else Freezer(constant=True)).freeze(self.value)


def call_of(
    signature: inspect.Signature, factory: Any, args: Any, kwargs: Any, constants: Sequence[str]
) -> Made:
    """Returns the record of a call, the same for equivalent calls.

    Args:
      signature: the signature of the factory.
      factory: the factory.
      args: its positional arguments.
      kwargs: its keyword arguments.
      constants: the names of arguments whose numbers are constants.
    """
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    for name in constants:
        bound.arguments[name] = Constant(bound.arguments[name])
    return Made(factory, (bound.args, bound.kwargs))
