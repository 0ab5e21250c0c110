"""The parts of a rule of one array: kernel, slots, and step counter.

A `Kernel` holds a rule's pure functions of one array. A use of it, with its numbers and masks, is a
link (`gradtx.engine.links`).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from gradtx._arguments import MisfitError, described
from gradtx.engine.base import Array, ExtraArgs, OptState, PyTree, Scalar, ScalarOrSchedule
from gradtx.engine.numerics import NeedsConstant, safe_increment
from gradtx.engine.scalars import finished


class MaskedNode(NamedTuple):
    """A placeholder for a masked leaf; a pytree without leaves."""


class Slots:
    """The slots of a rule for one array: named arrays, read as attributes.

    The names are the fields of the rule's state class. Scalars that are computed once per step are
    read in the same way.

    Example:
      >>> from gradtx import Slots
      >>> Slots(mu=1.0, nu=2.0).nu
      2.0
    """

    def __init__(self, **arrays: Any):
        self.__dict__.update(arrays)

    def __getattr__(self, name: str) -> Any:  # only called for names that are absent
        raise AttributeError(f"there is no slot {name!r}, only {sorted(self.__dict__)}")

    def __repr__(self) -> str:
        return f"Slots({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


class Counter(NamedTuple):
    """The step counter of a state, which the engine updates and rules read as `step`.

    Attributes:
      field: the field of the state.
      first: its value before the first step.
      advance: a function that returns the next value.
      clock: another field with the same count, which is the argument of schedules and may be reset
        to restart them. Default: `None`, the counter itself is their argument.
    """

    field: str = "count"
    first: np.generic = np.int32(0)
    advance: Callable[[Array], Array] = safe_increment
    clock: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields with a count."""
        return (self.field,) if self.clock is None else (self.field, self.clock)


COUNT = Counter()
"""The counter of most states: the number of steps taken."""


class Kernel(NamedTuple):
    """A rule's pure functions.

    Attributes:
      state: the NamedTuple class of the state.
      init: `init(p) -> Slots`, or `None` for a rule without slots; see `keyed`.
      update: `update(g, s, step, p) -> (g, Slots)`.
      per_step: `per_step(step)`, a function that returns a dict of scalars, or `None`.
      counter: the step counter, used if the state has its field.
      integers: whether an integer update stays an integer, if the scalars are integers too.
      real_only: whether complex updates are an error.
      stored: the dtypes in which slots are stored, by name, if they are not those of `init`.
      keyed: whether `init` has a second argument, a random key or those of the matrices.
    """

    state: Any
    init: Callable[..., Slots] | None
    update: Callable[..., tuple[Array, Slots]]
    per_step: Callable[..., Mapping[str, Scalar]] | None = None
    counter: Counter = COUNT
    integers: bool = False
    real_only: bool = False
    stored: tuple[tuple[str, DTypeLike], ...] = ()
    keyed: bool = False

    def slots(self, known: Mapping[str, Scalar]) -> tuple[str, ...]:
        """Returns the fields of the state that are slots.

        Args:
          known: the scalars that all leaves share.
        """
        kept = (*self.counter.fields, "rng_key", *known)
        return tuple(name for name in self.state._fields if name not in kept)


class LeafError(Exception):
    """Raised if an argument of a link or a leaf is not valid.

    A message that begins with "is" or "has" continues the leaf's path; others follow a colon.

    Attributes:
      kind: the class of the error that is raised to the user.
      stage: the number of the link among those that run together.
    """

    def __init__(self, kind: type[Exception], message: str, stage: int = 0):
        super().__init__(message)
        self.kind, self.stage = kind, stage

    def at(self, path: str) -> "LeafError":
        """Returns the same error with the leaf's path."""
        joint = " " if str(self).startswith(("is ", "has ")) else ": "
        error = LeafError(self.kind, f"{path}{joint}{self}", self.stage)
        error.__cause__ = self.__cause__
        return error


@contextlib.contextmanager
def errors_of(function: str, arrays: Mapping[str, PyTree], stage: int = 0) -> Iterator[None]:
    """Adds the arrays' dtypes and shapes to the errors of a function of a rule.

    Args:
      function: the name of the function in error messages.
      arrays: the arrays that it was given, by their names in error messages.
      stage: the number of the link among those that run together. Default: 0.

    Raises:
      LeafError: the function cannot use the arrays.
    """
    try:
        yield
    except NeedsConstant:
        raise
    except MisfitError as e:
        raise LeafError(ValueError, str(e), stage) from None
    except (TypeError, ValueError, AttributeError) as e:
        told = ", ".join(
            f"{name} is {jnp.result_type(x)} of shape {jnp.shape(x)}"
            for name, tree in arrays.items()
            for x in jax.tree.leaves(tree)
        )
        # Not the error's own class: some classes of JAX cannot be made of a message.
        kind = ValueError if isinstance(e, ValueError) else TypeError
        problem = str(e).split("\n")[0]
        if "NoneType" in problem:
            problem += "; step is None unless the state has a count, and p unless params=True"
        raise LeafError(kind, f"{told}, and {function} cannot use them: {problem}", stage) from e


def run_rule(
    update: Callable[..., Any],
    g: Array,
    s: Slots,
    step: Any,
    p: Any,
    names: Sequence[str],
    stage: int = 0,
) -> tuple[Array, Slots]:
    """Runs a rule on one array or stack of matrices, and checks what it returns.

    Args:
      update: the rule, `update(g, s, step, p)`.
      g: the update.
      s: the slots and the scalars.
      step: the step count, or `None`.
      p: the parameter, or `None`.
      names: the names of the slots.
      stage: the number of the link among those that run together. Default: 0.

    Raises:
      LeafError: the rule raises an error, or returns something else than an array and slots.
    """
    slots = {f"state.{name}": vars(s)[name] for name in names}
    with errors_of("the rule", {"the update": g, "the parameter": p, **slots}, stage):
        returned = update(g, s, step, p)
    return checked_result(returned, g, s, names, stage)


def checked_slots(made: Any, names: Sequence[str], must: str, stage: int = 0) -> Slots:
    """Returns the slots that a function of a rule has made.

    Args:
      made: what it has returned.
      names: the names of the slots.
      must: the beginning of the error message.
      stage: the number of the link among those that run together. Default: 0.

    Raises:
      LeafError: these are not slots, or others.
    """
    found = sorted(vars(made)) if isinstance(made, Slots) else described(made)
    if found != sorted(names):
        raise LeafError(TypeError, f"{must} Slots of {sorted(names)}, got {found}", stage)
    return made


def checked_result(
    returned: Any, g: Array, s: Slots, names: Sequence[str], stage: int = 0
) -> tuple[Array, Slots]:
    """Returns the update and the slots that a rule has returned.

    Args:
      returned: what it has returned.
      g: the update that it was given.
      s: the slots that it was given.
      names: the names of the slots.
      stage: the number of the link among those that run together. Default: 0.

    Raises:
      LeafError: this is not an array and slots, in the shapes of those that were given.
    """
    pair = isinstance(returned, tuple) and len(returned) == 2
    u, made = returned if pair else (g, returned)
    new = checked_slots(made, names, "update must return an array and", stage)
    slots = [(f"state.{name} of ", vars(s)[name], vars(new)[name]) for name in names]
    for name, old, x in [("", g, u), *slots]:
        wanted, found = (jax.tree.map(jnp.shape, tree) for tree in (old, x))
        if found != wanted:
            told = f"the rule returned {name}shape {found}, not {wanted}"
            raise LeafError(ValueError, told, stage)
    return u, new


def field(state: OptState, name: str) -> PyTree:
    """Returns a state's field, or `None`; a tuple's method `count` is not a field."""
    return getattr(state, name) if name in getattr(state, "_fields", ()) else None


def value_at(scalar_or_schedule: ScalarOrSchedule, step: Any) -> Scalar | np.ndarray:
    """Returns a schedule's value at a step, and a number as it is.

    This is the only place that distinguishes the two. A schedule is computed once: without
    `finished`, XLA would compile it, and compute it, in the kernel of each leaf.

    Args:
      scalar_or_schedule: a number, a scalar array, or a function of the step count.
      step: the step count, 0 at the first step.
    """
    if not callable(scalar_or_schedule):
        return scalar_or_schedule
    value = scalar_or_schedule(step)
    return finished(value) if isinstance(value, Tracer) else value


def rate_at(learning_rate: ScalarOrSchedule, step: Any, extra: ExtraArgs) -> Scalar:
    """Returns the learning rate of a step: that of the call if given, or else the rule's own.

    Args:
      learning_rate: a number, a scalar array, or a schedule.
      step: the step count.
      extra: the extra arguments of `update`.

    Raises:
      LeafError: the learning rate of the call is no number.
    """
    given = extra.get("learning_rate")
    if given is None:
        return value_at(learning_rate, step)
    if callable(given) or isinstance(given, str):
        told = f"learning_rate must be a number or a scalar array, got {described(given)}"
        raise LeafError(TypeError, f"{told}; a schedule is an argument of the optimizer")
    return jnp.asarray(given)


def rate_kept(rate: Array, count: ArrayLike) -> Array:
    """Returns the learning rate of a step, or another scalar of it, as the state stores it.

    XLA's GPU backend returns results that no kernel computes, such as constants, by an additional
    copy, with which a donated step of 144 leaves takes a quarter longer (measured on an H200). So a
    kernel computes it, from the count, which is never negative. Outside `jit` it is a copy, because
    the state may be donated.

    Args:
      rate: the learning rate, in the dtype in which it is stored.
      count: the step count before the step.
    """
    return jnp.where(count < 0, 0, rate) if isinstance(count, Tracer) else jnp.copy(rate)
