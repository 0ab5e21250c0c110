"""What a rule of one array is, and how its state is counted and keyed.

A `Kernel` is a rule's pure functions of one array. What else belongs to one use of it, and how
links of other kinds differ, is in `gradtx.engine.links`. These are only descriptions.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.engine.base import Array, OptState
from gradtx.engine.numerics import safe_increment


class MaskedNode(NamedTuple):
    """Stands where a masked leaf has no slot; a pytree without leaves."""


class Slots:
    """What a rule remembers about one array: named arrays, read as attributes.

    The names are the fields of the rule's state class. Scalars that are computed once a step are
    read in the same way.

    Example:
      >>> from gradtx import Slots
      >>> Slots(mu=1.0, nu=2.0).nu
      2.0
    """

    def __init__(self, **arrays: Any):
        self.__dict__.update(arrays)

    def __getattr__(self, name: str) -> Any:  # only reached for names that are absent
        raise AttributeError(f"no slot {name!r}; there are {sorted(self.__dict__)}")

    def __repr__(self) -> str:
        return f"Slots({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


class Counter(NamedTuple):
    """The scalar by which a state knows where it is; the engine keeps it, rules read it as `step`.

    Attributes:
      field: the state's field.
      first: its value before the first step.
      advance: the function that gives the next value.
      clock: another field that counts like it, by which schedules go, and which may be set back
        for them to begin again. Default: schedules go by the counter itself.
    """

    field: str = "count"
    first: Any = np.int32(0)
    advance: Callable[[Array], Array] = safe_increment
    clock: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that count."""
        return (self.field,) if self.clock is None else (self.field, self.clock)


COUNT = Counter()
"""What most states have: the number of steps taken."""


class Kernel(NamedTuple):
    """A rule's pure functions.

    Attributes:
      state: the NamedTuple class of the state.
      init: `init(p) -> Slots`, or `None` for a rule without slots.
      update: `update(g, s, step, p) -> (g, Slots)`.
      per_step: `per_step(step) -> dict` of scalars, or `None`.
      counter: how the state counts its steps, if it has the counter's field.
      integers: whether an integer update stays an integer, if the scalars are integers too.
      stored: the dtypes in which slots are stored, by name, where they are not as `init` gives
        them.
    """

    state: Any
    init: Callable[[Array], Slots] | None
    update: Callable[..., tuple[Array, Slots]]
    per_step: Callable[[Any], Mapping[str, Any]] | None = None
    counter: Counter = COUNT
    integers: bool = False
    stored: tuple[tuple[str, Any], ...] = ()

    def slots(self, known: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the fields of the state that are slots: neither kept by the engine nor known.

        Args:
          known: the scalars that all leaves share.
        """
        kept = (*self.counter.fields, "rng_key", *known)
        return tuple(name for name in self.state._fields if name not in kept)


class LeafError(Exception):
    """Something is wrong at a leaf.

    Attributes:
      kind: the class of the error that users see.
      stage: the number of the link, among those that run together.
    """

    def __init__(self, kind: type[Exception], message: str, stage: int = 0):
        super().__init__(message)
        self.kind, self.stage = kind, stage

    def at(self, path: str) -> "LeafError":
        """Returns the same error, with the leaf's path."""
        error = LeafError(self.kind, f"{path}: {self}", self.stage)
        error.__cause__ = self.__cause__
        return error


def field(state: OptState, name: str) -> Any:
    """Returns a state's field, or `None`; a tuple's own methods (`count`!) are no fields."""
    return getattr(state, name) if name in getattr(state, "_fields", ()) else None


def value_at(scalar_or_schedule: Any, step: Any) -> Any:
    """Returns a schedule's value at a step, and a number as it is.

    This is the one place where the two are told apart.

    Args:
      scalar_or_schedule: a number, a scalar array, or a function of the step count.
      step: the step count, 0 at the first step.
    """
    return scalar_or_schedule(step) if callable(scalar_or_schedule) else scalar_or_schedule


def rate_at(learning_rate: Any, step: Any, extra: Mapping[str, Any]) -> Any:
    """Returns the learning rate of a step: the one that was given at the call, or one's own.

    Args:
      learning_rate: a number, a scalar array, or a schedule.
      step: the step count.
      extra: the extra arguments of `update`.
    """
    given = extra.get("learning_rate")
    return value_at(learning_rate, step) if given is None else jnp.asarray(given)


def rate_kept(rate: Array, count: Any) -> Array:
    """Returns the learning rate of a step, or another scalar of it, as the state keeps it.

    XLA's GPU backend hands out what no kernel computes, a constant for one, by a copy of its own,
    after which a donated step of 144 leaves takes a quarter longer (seen on an H200). So a kernel
    computes it, of the count, which is never negative.

    Args:
      rate: the rate, in the dtype in which it is kept.
      count: the step count before the step.
    """
    return jnp.where(count < 0, 0, rate) if isinstance(count, Tracer) else rate
