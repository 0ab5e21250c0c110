"""States in the layout of optax."""

import functools
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._roles import KEPT, Clock, Count, Slot, UnsignedSlot, declared_as
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    TransformationLike,
    with_extra_args_support,
)
from gradtx.engine.leafwise import piece
from gradtx.engine.links import Link, Pair, Rule
from gradtx.engine.pipeline import FORM, wrapped
from gradtx.optimizers import ScaleByRmsState, ScaleByRStdDevState
from gradtx.state.belonging import LeafRole, roles
from gradtx.transforms import (
    AddDecayedWeightsState,
    ScaleByLearningRateState,
    ScaleByScheduleState,
)
from gradtx.tree.walking import path_name


@declared_as("scale_by_rms")
class ScaleByRmsWithCountState(NamedTuple):
    """The state of `scale_by_rms` with bias correction, in optax.

    Attributes:
      count: the number of steps taken.
      nu: moving average of squared gradients, real.
    """

    count: Count
    nu: UnsignedSlot


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
    nu: UnsignedSlot


@declared_as("add_decayed_weights")
class WeightDecaySchedule(NamedTuple):
    """The state of `add_decayed_weights` with a schedule, in optax.

    Attributes:
      count: the number of steps taken.
    """

    count: Clock


Dtypes = Mapping[str, DTypeLike]
HALF = (jnp.bfloat16, jnp.float16)
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
def optax_layout(tx: TransformationLike) -> GradientTransformation:
    """Returns a transformation whose states are exactly those of optax.

    Its `init` returns the tuples, classes, fields and dtypes that optax's does, under the names of
    gradtx's classes: `EmptyState()` or `ScaleByScheduleState(count)` for a learning rate, for
    instance. Its `update` is that of `tx`: every `update` of gradtx accepts states of both layouts,
    and returns states of the layout that it got. Checkpoints that flax or orbax wrote with optax
    can be restored into `optax_layout(tx).init(params)`.

    These states do not have the learning rate of the last step. As in optax, the slots of
    half-precision parameters are half precision, in which small steps are lost to rounding,
    unless the optimizer has an argument for their dtype, such as `mu_dtype`.

    Args:
      tx: an optimizer or another transformation, wrappers and chains included.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.optax_layout(gradtx.sgd(0.1, momentum=0.9))
      >>> state = tx.init(jnp.zeros(2))
      >>> print(state)
      (TraceState(trace=Array([0., 0.], dtype=float32)), EmptyState())
      >>> updates, state = tx.update(jnp.ones(2), state)
      >>> print(updates, state[1])
      [-0.1 -0.1] EmptyState()
    """
    tx = with_extra_args_support(tx)

    def init(params: Params) -> OptState:
        token = FORM.set(functools.partial(_as_in_optax, _half_precision(params)))
        try:
            return tx.init(params)
        finally:
            FORM.reset(token)

    return wrapped(init, tx.update, tx)


def _half_precision(params: Params) -> Dtypes:
    """Returns the dtypes of half-precision parameters, by their paths."""
    leaves = jax.tree.leaves_with_path(params)
    return {path_name(path): x.dtype for path, x in leaves if getattr(x, "dtype", None) in HALF}


def _as_in_optax(outer: Dtypes, link: Link, state: OptState, params: Params) -> OptState:
    """Returns the initial state of a link in optax's layout.

    Args:
      outer: the dtypes of half-precision parameters of the whole transformation; a wrapper may
        widen them for the transformation inside.
      link: the link.
      state: its state.
      params: its parameters.
    """
    if type(state) is not link.state:
        return state
    kept = {name for name, x in link.state._field_defaults.items() if x is KEPT}
    if isinstance(link, Pair):  # the states inside have optax's layout already
        fields = state._asdict()
        return without(link.state, kept)(**{n: x for n, x in fields.items() if n not in kept})
    timed = isinstance(link, Rule) and link.timed
    fields = _stored_as_in_optax(link, state, params, {**outer, **_half_precision(params)})
    optional = kept - ({"count"} if timed else set())
    other = CLASSES.get((link.state, timed)) or without(link.state, optional)
    return other(**{name: fields[name] for name in other._fields})


def _stored_as_in_optax(
    link: Link, state: OptState, params: Params, half: Dtypes
) -> Mapping[str, PyTree]:
    """Returns the fields of a state; those of half-precision parameters in their dtypes."""
    if not half:
        return state._asdict()
    lowest = min(half.values(), key=lambda dtype: jnp.finfo(dtype).bits)
    chosen = {name for name, _ in link.kernel.stored} if isinstance(link, Rule) else set()

    def cast(role: LeafRole, x: Array) -> Array:
        if role.kind == "reading" or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        if role.parameter is not None:
            return x.astype(half.get(role.parameter, x.dtype))
        return x if x.shape else x.astype(lowest)

    found = roles(state, params)._asdict()
    return {
        name: x if name in chosen else jax.tree.map(cast, found[name], x)
        for name, x in state._asdict().items()
    }


def without(state: type, fields: Iterable[str]) -> type:
    """Returns a class of states without some fields, under the same name.

    Args:
      state: the class, a NamedTuple.
      fields: the fields that are omitted.
    """
    kept = tuple(name for name in state._fields if name not in fields)
    return state if kept == state._fields else _with_only(state, kept)


@functools.cache
def _with_only(state: type, kept: tuple[str, ...]) -> type:
    def absent(self: OptState) -> NoReturn:
        raise AttributeError(f"{state.__name__} has no other fields than {kept} in optax's layout")

    def reduce(self: OptState) -> tuple[Callable[..., OptState], tuple]:
        return _rebuilt, (state, kept, *self)

    body = {name: property(absent) for name in state._fields if name not in kept}
    bases = (namedtuple(state.__name__, kept), state)
    return type(state.__name__, bases, {"__slots__": (), "__reduce__": reduce, **body})


def _rebuilt(state: type, kept: tuple[str, ...], *values: PyTree) -> OptState:
    return _with_only(state, kept)(*values)
