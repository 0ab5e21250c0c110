"""Equality, hashes and pickling of transformations and schedules: by how they were made.

Two calls of a factory with equal arguments return equal objects, so that a function compiled with
one as its static argument is not compiled again for the other. Numbers and arrays are compared by
their values, functions by identity.
"""

import contextlib
import functools
import importlib
import inspect
import operator
import pickle
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from gradtx.engine.concrete import is_traced
from gradtx.engine.made import Freezer, Frozen, Made, Opaque, Source, call, thaw


class WholeFreezer(Freezer):
    """Freezes values with all that they contain; then thawing needs no numbers."""

    whole = True

    def __init__(self):
        super().__init__(constant=True)
        self._frozen: dict[int, tuple[Made, Frozen]] = {}

    def freeze(self, x: Any, stand_in: bool = False) -> Frozen:
        """Returns the frozen value of any object."""
        try:
            return super().freeze(x)
        except Opaque:
            return Frozen(_itself, Kept(x))

    def call(self, made: Made, stand_in: bool = False) -> Frozen:
        """Returns the frozen value of a call, with the factory's public name."""
        if id(made) not in self._frozen:
            frozen = Frozen(call, (ByName(made.factory), self.freeze(made.given)))
            self._frozen[id(made)] = made, frozen
        return self._frozen[id(made)][1]


class Kept:
    """Any object, kept as it is. Arrays are compared by their elements, other objects that
    cannot be hashed by identity.

    Args:
      x: the object.
    """

    def __init__(self, x: Any):
        self.x = x
        self._key: Hashable = (type(x), id(x))
        with contextlib.suppress(TypeError, RuntimeError):  # no hash; or no data here
            if isinstance(x, (np.ndarray, jax.Array)) and not is_traced(x):
                self._key = (type(x), x.dtype.name, x.shape, np.asarray(x).tobytes())
            else:
                hash(x)
                self._key = (type(x), x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, (self.x,)


class ByName(NamedTuple):
    """A factory, pickled by the name of its module and its own there.

    Attributes:
      factory: the function that was decorated.
    """

    factory: Callable[..., Any]

    def __reduce__(self) -> tuple[Any, ...]:
        module, name = self.factory.__module__, self.factory.__qualname__
        try:
            known = inspect.unwrap(_public(module, name)) is inspect.unwrap(self.factory)
        except (ImportError, AttributeError):
            known = False
        if not known:
            raise pickle.PicklingError(
                f"{name}: a transformation can be pickled only if the function that returns it is "
                f"found under its name at the top of its module, {module}"
            )
        return _public, (module, name)


def _public(module: str, name: str) -> Callable[..., Any]:
    return operator.attrgetter(name)(importlib.import_module(module))


class Value:
    """An immutable object that equals others made alike, and is pickled by how it was made.

    Subclasses define `freeze`, which returns how it was made.
    """

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns its frozen value."""
        raise NotImplementedError

    @functools.cached_property
    def _key(self) -> tuple[int, Frozen]:
        frozen = self.freeze(WholeFreezer())
        return hash(frozen), frozen

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Value) and self._key == other._key)

    def __hash__(self) -> int:
        return self._key[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._key[1],)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


def _itself(data: Kept, source: Source) -> Any:
    return data.x


def _remade(frozen: Frozen) -> Any:
    return thaw(frozen, Source(()))
