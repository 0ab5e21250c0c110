"""States as optax has them."""

import functools
from collections import namedtuple
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from gradtx.engine.base import EmptyState, GradientTransformation, OptState, Params
from gradtx.engine.leafwise import piece
from gradtx.engine.links import Link
from gradtx.engine.pipeline import FORM, wrapped
from gradtx.engine.roles import Clock, Count, Slot, declared_as
from gradtx.optimizers import ScaleByRmsState, ScaleByRStdDevState
from gradtx.state.belonging import LeafRole, roles
from gradtx.transforms import (
    AddDecayedWeightsState,
    ScaleByLearningRateState,
    ScaleByScheduleState,
)


@declared_as("scale_by_rms")
class ScaleByRmsWithCountState(NamedTuple):
    """The state of `scale_by_rms` with bias correction, in optax.

    Attributes:
      count: the number of steps taken.
      nu: moving average of squared gradients, real.
    """

    count: Count
    nu: Slot


@declared_as("scale_by_rstd_dev")
class ScaleByRStdDevWithCountState(NamedTuple):
    """The state of `scale_by_stddev` with bias correction, in optax.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: moving average of squared gradients, real.
    """

    count: Count
    mu: Slot
    nu: Slot


@declared_as("add_decayed_weights")
class WeightDecaySchedule(NamedTuple):
    """The state of `add_decayed_weights` with a schedule, in optax.

    Attributes:
      count: the number of steps taken.
    """

    count: Clock


CLASSES: Mapping[tuple[type, bool], type] = {
    (ScaleByLearningRateState, False): EmptyState,
    (ScaleByLearningRateState, True): ScaleByScheduleState,
    (AddDecayedWeightsState, False): EmptyState,
    (AddDecayedWeightsState, True): WeightDecaySchedule,
    (ScaleByRmsState, True): ScaleByRmsWithCountState,
    (ScaleByRStdDevState, True): ScaleByRStdDevWithCountState,
}
"""The classes of optax's states by ours, and by whether the step count matters."""


@piece
def optax_layout(tx: GradientTransformation) -> GradientTransformation:
    """Returns a transformation whose state has the layout of optax.

    TODO
    """

    def init(params: Params) -> OptState:
        token = FORM.set(_as_in_optax)
        try:
            return tx.init(params)
        finally:
            FORM.reset(token)

    return wrapped(init, tx.update, tx)


def _as_in_optax(link: Link, state: OptState, params: Params) -> OptState:
    """Returns the first state of a link in optax's layout."""
    if link.state is None or type(state) is not link.state:
        return state
    timed = bool(getattr(link, "timed", False))
    optional = set(link.state._field_defaults) - ({"count"} if timed else set())
    other = CLASSES.get((link.state, timed))
    if other is None:
        kept = tuple(f for f in state._fields if f not in optional)
        other = link.state if kept == state._fields else without(link.state, kept)
    return other(**{f: getattr(state, f) for f in other._fields})


@functools.cache
def without(state: type, fields: tuple[str, ...]) -> type:
    """Returns a class of states with fewer fields, under the same name.

    Args:
      state: the class, a NamedTuple.
      fields: the fields that remain.
    """

    def absent(self: Any) -> NoReturn:
        raise AttributeError(f"optax's {state.__name__} has only the fields {fields}")

    def reduce(self: tuple) -> tuple:
        return _rebuilt, (state, fields, *self)

    body = {name: property(absent) for name in set(state._fields) - set(fields)}
    bases = (namedtuple(state.__name__, fields), state)
    return type(state.__name__, bases, {"__slots__": (), "__reduce__": reduce, **body})


def _rebuilt(state: type, fields: tuple[str, ...], *values: Any) -> OptState:
    return without(state, fields)(*values)
