"""Hyperparameters in the state, where they can be read, changed and scheduled."""

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Updates,
    is_function,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.numerics import default_float, safe_increment
from gradtx.engine.pipeline import wrapped
from gradtx.engine.roles import Aside, Count, Inner, Role, declared


@declared
class InjectHyperparamsState(NamedTuple):
    """A state with hyperparameters, as older code and checkpoints have it.

    Attributes:
      count: the number of steps taken.
      hyperparams: from names to values.
      inner_state: the state of the transformation within.
    """

    count: Count
    hyperparams: Annotated[dict[str, Any], Role("hyperparameter", told="*")]
    inner_state: Inner


@declared
class InjectStatefulHyperparamsState(NamedTuple):
    """The state of `inject_hyperparams`.

    Attributes:
      count: the number of steps taken.
      hyperparams: from names to values; those that are not scheduled may be changed.
      hyperparams_states: from the names of scheduled hyperparameters to their schedules' states.
      inner_state: the state of the transformation within.
    """

    count: Count
    hyperparams: Annotated[dict[str, Any], Role("hyperparameter", told="*")]
    hyperparams_states: Aside
    inner_state: Inner


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule with a memory: `init() -> state`, `schedule(state)`, `update(state) -> state`.

    `schedule(state, **extra)` is the value for a step; `update(state, **extra)` makes the state for
    the next one. Both get the extra arguments of the transformation's `update`.
    """

    def init(self) -> Any:
        """Gives the first state."""
        ...

    def update(self, state: Any, **extra_args: Any) -> Any:
        """Gives the next state."""
        ...

    def __call__(self, state: Any, **extra_args: Any) -> Any:
        """Gives the value."""
        ...


@declared
class WrappedScheduleState(NamedTuple):
    """The state of a schedule that only counts.

    Attributes:
      count: the number of steps taken.
    """

    count: Count


class WrappedSchedule:
    """A schedule with its step count as its memory.

    Args:
      schedule_fn: a function of the step count.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.schedules.WrappedSchedule(gradtx.linear_schedule(1.0, 0.0, 10))
      >>> state = schedule.update(schedule.init())
      >>> print(schedule(state))
      0.9
    """

    def __init__(self, schedule_fn: Callable[[Any], Any]):
        self._schedule = schedule_fn

    def init(self) -> WrappedScheduleState:
        """Gives the first count, 0."""
        return WrappedScheduleState(jnp.zeros((), jnp.int32))

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """Counts a step.

        Args:
          state: the count.
          **extra_args: ignored.
        """
        del extra_args
        return WrappedScheduleState(safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Any:
        """Gives the schedule's value."""
        del extra_args
        return self._schedule(state.count)


def inject_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: Any | None = None,
) -> Callable[..., GradientTransformation]:
    """Makes a factory whose hyperparameters live in the state, to be read, changed and scheduled.

    Numbers become runtime values: `state.hyperparams["b2"] = 0.95` holds from the next step on,
    without compiling again. Functions that the caller gives are schedules, of the step count, which
    is 0 at the first step, or with a memory of their own (`StatefulSchedule`); their values are in
    `state.hyperparams` to be read. What stays as it is: parameters that the factory annotates as
    integers, booleans, strings, `None`, dtypes, random keys, transformations, and the factory's own
    defaults if they are functions.

    Runtime numbers are float32 (float64 in x64 mode) whatever the parameters are, so that nothing
    else changes: the trajectory is that of the optimizer alone, to rounding. Learning rates need no
    wrapper: `scale_by_learning_rate` has them in its state.

    Args:
      inner_factory: a function of hyperparameters that returns a transformation.
      static_args: the name or names of further hyperparameters that stay as they are; a mask that
        is a function has to be among them. Default: none.
      hyperparam_dtype: the dtype of all runtime numbers. Default: as said above, and for arrays
        their own.

    Returns:
      A function of the same hyperparameters.

    Raises:
      ValueError: a name in `static_args` is none of the factory's.
      TypeError: a function among the hyperparameters does not give a number, like a schedule would.

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
            f"inject_hyperparams: static_args has {unknown}, which are no parameters of "
            f"{_name(inner_factory)}{signature}"
        )

    def make(*args: Any, **kwargs: Any) -> GradientTransformation:
        given = signature.bind(*args, **kwargs)
        schedules: dict[str, StatefulSchedule] = {}
        numbers: dict[str, Any] = {}
        for name, value in given.arguments.items():
            if name not in static and _is_schedule(value):
                stateful = isinstance(value, StatefulSchedule)
                schedules[name] = value if stateful else WrappedSchedule(value)
        given.apply_defaults()
        for name, value in given.arguments.items():
            declared = signature.parameters[name]
            if name not in static and name not in schedules and _is_number(value, declared):
                numbers[name] = value

        def inner(values: Mapping[str, Any]) -> GradientTransformation:
            bound = inspect.BoundArguments(signature, {**given.arguments, **values})  # type: ignore
            return with_extra_args_support(inner_factory(*bound.args, **bound.kwargs))

        def scheduled(states: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
            found = {}
            for name, schedule in schedules.items():
                way_out = (
                    f"inject_hyperparams: {name} of {_name(inner_factory)} was taken as a "
                    f"schedule; if it is none, put {name!r} into static_args"
                )
                try:
                    value = schedule(states[name], **extra)
                except Exception as error:
                    error.add_note(way_out)
                    raise
                if not _is_numeric(value):
                    raise TypeError(f"{way_out}; it returned {type(value).__name__}, not a number")
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

        return wrapped(init, update, alike)

    return make


inject_stateful_hyperparams = inject_hyperparams


def _name(factory: Any) -> str:
    return getattr(factory, "__name__", type(factory).__name__)


def _is_schedule(value: Any) -> bool:
    return is_function(value) and not isinstance(value, type) and not hasattr(value, "dtype")


def _is_number(value: Any, declared: inspect.Parameter) -> bool:
    """Says whether a hyperparameter can be a runtime value."""
    return _is_numeric(value) and not _is_integer(declared.annotation)


def _is_numeric(value: Any) -> bool:
    """Returns whether a value is a number or an array of numbers; booleans are none."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return jnp.issubdtype(value.dtype, jnp.number)
    return isinstance(value, (int, float, complex)) and not isinstance(value, bool)


def _is_integer(annotation: Any) -> bool:
    """Says whether an annotation admits integers, and no other numbers or arrays."""
    if isinstance(annotation, str):
        parts = {part.strip() for part in annotation.split("|")}
    else:
        found = typing.get_args(annotation) or (annotation,)
        parts = {getattr(part, "__name__", str(part)).split(".")[-1] for part in found}
    return "int" in parts and parts <= {"int", "None", "NoneType", "Array"}


def _as_number(value: Any, dtype: Any | None) -> Array:
    """Makes a strongly typed array; Python numbers get the default float."""
    if not hasattr(value, "dtype"):
        value = jnp.asarray(value, jnp.result_type(value, default_float()))
    value = jnp.asarray(value, dtype)
    return lax.convert_element_type(value, value.dtype)
