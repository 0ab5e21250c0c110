"""Hyperparameters in the state, where they can be read, changed and scheduled."""

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx._roles import Aside, Count, Inner, Role, declared
from gradtx.engine.base import (
    Array,
    ExtraArgs,
    GradientTransformation,
    Params,
    PyTree,
    Scalar,
    Schedule,
    TransformationLike,
    Updates,
    is_function,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import default_float, safe_increment
from gradtx.engine.pipeline import wrapped


@declared
class InjectHyperparamsState(NamedTuple):
    """The older form of `InjectStatefulHyperparamsState`, for code and checkpoints that use it.

    Attributes:
      count: the number of steps taken.
      hyperparams: a dict from names to values.
      inner_state: the state of the wrapped transformation.
    """

    count: Count
    hyperparams: Annotated[dict[str, Array], Role("hyperparameter", told="*")]
    inner_state: Inner


@declared
class InjectStatefulHyperparamsState(NamedTuple):
    """The state of `inject_hyperparams`.

    Attributes:
      count: the number of steps taken.
      hyperparams: a dict from names to values, scalar arrays. Those that are not scheduled may be
        changed.
      hyperparams_states: a dict from the names of scheduled hyperparameters to the states of their
        schedules.
      inner_state: the state of the wrapped transformation.
    """

    count: Count
    hyperparams: Annotated[dict[str, Array], Role("hyperparameter", told="*")]
    hyperparams_states: Aside
    inner_state: Inner


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule with a state: `init() -> state`, `schedule(state)`, `update(state) -> state`.

    `schedule(state, **extra)` returns the value for a step; `update(state, **extra)` returns the
    state for the next one. Both get the extra arguments of the transformation's `update`.
    """

    def init(self) -> PyTree:
        """Returns the first state."""
        ...

    def update(self, state: PyTree, **extra_args: Any) -> PyTree:
        """Returns the next state."""
        ...

    def __call__(self, state: PyTree, **extra_args: Any) -> ArrayLike:
        """Returns the value."""
        ...


@declared
class WrappedScheduleState(NamedTuple):
    """The state of a `WrappedSchedule`.

    Attributes:
      count: the number of steps taken.
    """

    count: Count


class WrappedSchedule:
    """A schedule whose state is the step count.

    Args:
      schedule_fn: a function of the step count.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.schedules.WrappedSchedule(gradtx.linear_schedule(1.0, 0.0, 10))
      >>> state = schedule.update(schedule.init())
      >>> print(schedule(state))
      0.9
    """

    def __init__(self, schedule_fn: Schedule):
        self._schedule = schedule_fn

    def init(self) -> WrappedScheduleState:
        """Returns the first state, a count of 0."""
        return WrappedScheduleState(jnp.zeros((), jnp.int32))

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """Returns the state after one more step.

        Args:
          state: the state.
          **extra_args: ignored.
        """
        del extra_args
        return WrappedScheduleState(safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Scalar:
        """Returns the schedule's value."""
        del extra_args
        return self._schedule(state.count)


def inject_hyperparams(
    inner_factory: Callable[..., TransformationLike],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformation]:
    """Returns a factory of transformations whose hyperparameters are in the state.

    There they can be read and changed: numbers become runtime values, and
    `state.hyperparams["b2"] = 0.95` takes effect at the next step, without recompilation. Functions
    among the arguments are schedules of the step count, which is 0 at the first step, or schedules
    with their own state (`StatefulSchedule`); their values can be read in `state.hyperparams`.
    Hyperparameters that are neither numbers nor schedules are not in the state: booleans, strings,
    `None`, dtypes, random keys, transformations, and functions that are the factory's own defaults;
    nor are those that the factory annotates as `int`, `int | None` or `int | Array`, such as seeds.

    Runtime numbers are float32 (float64 in x64 mode), whatever the dtype of the parameters is, so
    that the results are those of the optimizer without this wrapper, up to rounding. To read a
    learning rate, no wrapper is needed: it is in the state of `scale_by_learning_rate`.

    Args:
      inner_factory: a function of hyperparameters that returns a transformation.
      static_args: the name or names of further hyperparameters not to be put into the state; a mask
        that is a function must be among them. Default: none.
      hyperparam_dtype: the dtype of all runtime numbers. Default: float32 (float64 in x64 mode),
        and for arrays their own dtype.

    Returns:
      A function of the same hyperparameters, which returns a transformation.

    Raises:
      ValueError: a name in `static_args` is not a parameter of the factory; by the returned
        function: a hyperparameter is out of its range.
      TypeError: by `init` and `update` of the transformation: a function among the hyperparameters
        does not return a number, as schedules do.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.1, momentum=0.9)
      >>> state = tx.init(jnp.zeros(1))
      >>> state.hyperparams["momentum"] = 0.5
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      >>> print(updates, state.hyperparams["momentum"])
      [-0.15] 0.5
    """
    signature = inspect.signature(inner_factory)
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    if unknown := sorted(static - set(signature.parameters)):
        raise ValueError(
            f"inject_hyperparams: static_args must be names of parameters, got {unknown} for "
            f"{_name(inner_factory)}({', '.join(signature.parameters)})"
        )

    def make(*args: Any, **kwargs: Any) -> GradientTransformation:
        return _injected(inner_factory, args, kwargs, tuple(sorted(static)), hyperparam_dtype)

    return make


inject_stateful_hyperparams = inject_hyperparams


@piece
def _injected(
    inner_factory: Callable[..., TransformationLike],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    static: tuple[str, ...],
    hyperparam_dtype: DTypeLike | None,
) -> GradientTransformation:
    signature = inspect.signature(inner_factory)
    given = signature.bind(*args, **kwargs)
    schedules: dict[str, StatefulSchedule] = {}
    numbers: dict[str, ArrayLike] = {}
    for name, value in given.arguments.items():
        if name not in static and _is_schedule(value):
            stateful = isinstance(value, StatefulSchedule)
            schedules[name] = value if stateful else WrappedSchedule(value)
    given.apply_defaults()
    for name, value in given.arguments.items():
        declared = signature.parameters[name]
        if name not in static and name not in schedules and _is_number(value, declared):
            numbers[name] = value

    if (requirements := getattr(inner_factory, "requirements", None)) is not None:
        plain = {n: x for n, x in given.arguments.items() if n not in schedules}
        requirements.check((), plain)

    def inner(values: Mapping[str, ArrayLike]) -> GradientTransformation:
        bound = inspect.BoundArguments(signature, {**given.arguments, **values})  # type: ignore
        return with_extra_args_support(inner_factory(*bound.args, **bound.kwargs))

    def scheduled(states: Mapping[str, PyTree], extra: ExtraArgs) -> dict[str, Array]:
        found = {}
        for name, schedule in schedules.items():
            hint = (
                f"inject_hyperparams: {name} of {_name(inner_factory)} was used as a "
                f"schedule; if it is not one, add {name!r} to static_args"
            )
            try:
                value = schedule(states[name], **extra)
            except Exception as error:
                error.add_note(hint)
                raise
            if not _is_numeric(value):
                raise TypeError(f"{hint}; it returned {type(value).__name__}, not a number")
            found[name] = _as_number(value, hyperparam_dtype)
        return found

    def init(params: Params) -> InjectStatefulHyperparamsState:
        values = {name: _as_number(x, hyperparam_dtype) for name, x in numbers.items()}
        states = {name: schedule.init() for name, schedule in schedules.items()}
        values |= scheduled(states, {})
        return InjectStatefulHyperparamsState(
            jnp.zeros((), jnp.int32), values, states, inner(values).init(params)
        )

    @compiled_when_concrete
    def update(
        updates: Updates,
        state: InjectStatefulHyperparamsState,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[Updates, InjectStatefulHyperparamsState]:
        values = {
            name: jnp.asarray(state.hyperparams[name], _as_number(x, hyperparam_dtype).dtype)
            for name, x in numbers.items()
        }
        values |= scheduled(state.hyperparams_states, extra)
        updates, inner_state = inner(values).update(updates, state.inner_state, params, **extra)
        states = {
            name: schedule.update(state.hyperparams_states[name], **extra)
            for name, schedule in schedules.items()
        }
        return updates, InjectStatefulHyperparamsState(
            safe_increment(state.count), values, states, inner_state
        )

    def alike() -> GradientTransformation:
        states = {name: schedule.init() for name, schedule in schedules.items()}
        return inner({**numbers, **scheduled(states, {})})

    own = InjectStatefulHyperparamsState
    return wrapped(init, update, alike, name="inject_hyperparams", state=own)


def _name(factory: Callable[..., TransformationLike]) -> str:
    return getattr(factory, "__name__", type(factory).__name__)


def _is_schedule(value: Any) -> bool:
    return is_function(value) and not isinstance(value, type) and not hasattr(value, "dtype")


def _is_number(value: Any, declared: inspect.Parameter) -> bool:
    """Returns whether a hyperparameter can be a runtime value."""
    return _is_numeric(value) and not _is_integer(declared.annotation)


def _is_numeric(value: Any) -> bool:
    """Returns whether a value is a number or an array of numbers; booleans are not numbers."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return jnp.issubdtype(value.dtype, jnp.number)
    return isinstance(value, (int, float, complex)) and not isinstance(value, bool)


def _is_integer(annotation: Any) -> bool:
    """Returns whether an annotation admits integers, but no other numbers or arrays."""
    if isinstance(annotation, str):
        parts = {part.strip() for part in annotation.split("|")}
    else:
        found = typing.get_args(annotation) or (annotation,)
        parts = {getattr(part, "__name__", str(part)).split(".")[-1] for part in found}
    return "int" in parts and parts <= {"int", "None", "NoneType", "Array"}


def _as_number(value: ArrayLike, dtype: DTypeLike | None) -> Array:
    """Returns a strongly typed array; Python numbers get the default float dtype."""
    if not hasattr(value, "dtype"):
        value = jnp.asarray(value, jnp.result_type(value, default_float()))
    value = jnp.asarray(value, dtype)
    return lax.convert_element_type(value, value.dtype)
