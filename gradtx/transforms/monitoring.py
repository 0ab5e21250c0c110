"""Recording measurements of the updates in the state."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from gradtx._roles import Aside, Role, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    PyTree,
    Scalar,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.numerics import compute_dtype, default_float
from gradtx.engine.pipeline import wrapped
from gradtx.transforms.averaging import EmaState, ema
from gradtx.transforms.without_state import stateless


@declared
class SnapshotState(NamedTuple):
    """The state of `snapshot`.

    Attributes:
      measurement: a dict from the measurement's name to its last value; before any update, zeros.
    """

    measurement: Annotated[dict[str, PyTree], Role("reading", told="*")]


@declared
class MonitorState(NamedTuple):
    """The state of `monitor`.

    Attributes:
      measurements: a dict from names to the last values; before any update, zeros.
      measure_states: the states of the measures, in their order.
    """

    measurements: Annotated[dict[str, PyTree], Role("reading", told="*")]
    measure_states: Aside


def snapshot(measure_name: str, measure: Callable[[Updates], PyTree]) -> GradientTransformation:
    """Records in the state the value of a function of the updates, which it returns unchanged.

    Its place in a chain decides which updates it sees. `gradtx.tree.get(state, measure_name)`
    returns the value. Half-precision values are stored as float32.

    Args:
      measure_name: the name of the value.
      measure: a function of the updates that JAX can trace; it returns an array or a pytree of
        arrays, whose shapes must not change.

    Raises:
      ValueError: a measurement has another structure or shape than at `init`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.snapshot("norm", gradtx.global_norm), gradtx.sgd(0.1))
      >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
      >>> print(updates, state[0].measurement["norm"])
      [-0.3 -0.4] 5.0
    """

    def init(params: Params) -> SnapshotState:
        return SnapshotState({measure_name: _blank(jax.eval_shape(measure, params))})

    def update(
        updates: Updates, state: SnapshotState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SnapshotState]:
        del params, extra
        value = _store(measure(updates), state.measurement[measure_name], "snapshot", measure_name)
        return updates, SnapshotState({measure_name: value})

    traits = {"follows": True}
    return wrapped(init, update, name="snapshot", state=SnapshotState, traits=traits)


def monitor(
    measures: Mapping[str, TransformationLike | Callable[[Updates], PyTree]],
) -> GradientTransformation:
    """Records in the state several measurements of the updates, which it returns unchanged.

    A measure is a function of the updates, as for `snapshot`, or a transformation, such as
    `measure_with_ema`, whose transformed updates are the value; a transformation has its own state,
    and gets params and extra arguments. `gradtx.tree.get(state, name)` returns a value.
    Half-precision values are stored as float32.

    Args:
      measures: a mapping from names to measures.

    Raises:
      ValueError: a measurement has another structure or shape than at `init`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.monitor({
      ...     "norm": gradtx.global_norm,
      ...     "average": gradtx.measure_with_ema(gradtx.global_norm, decay=0.5),
      ... })
      >>> state = tx.init(jnp.zeros(2))
      >>> for size in [5.0, 20.0]:
      ...     updates, state = tx.update(size * jnp.array([0.6, 0.8]), state)
      >>> print(state.measurements["norm"], state.measurements["average"])
      20.0 15.0
    """
    parts = {name: _as_transformation(measure) for name, measure in measures.items()}

    def init(params: Params) -> MonitorState:
        states = tuple(tx.init(params) for tx in parts.values())
        seen = {
            name: jax.eval_shape(lambda p, s, tx=tx: tx.update(p, s, p)[0], params, state)
            for (name, tx), state in zip(parts.items(), states, strict=True)
        }
        return MonitorState({name: _blank(value) for name, value in seen.items()}, states)

    def update(
        updates: Updates, state: MonitorState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MonitorState]:
        measurements, states = {}, []
        for (name, tx), old in zip(parts.items(), state.measure_states, strict=True):
            value, new = tx.update(updates, old, params, **extra)
            measurements[name] = _store(value, state.measurements[name], "monitor", name)
            states.append(new)
        return updates, MonitorState(measurements, tuple(states))

    traits = {"passes_to": tuple(parts.values()), "follows": True}
    return wrapped(init, update, name="monitor", state=MonitorState, traits=traits)


def measure_with_ema(
    measure: Callable[[Updates], PyTree],
    decay: Scalar,
    debias: bool = True,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Returns a measure for `monitor`: the exponential moving average of another measure.

    The transformation replaces the updates by the average of `measure(updates)`; see `ema`.
    Booleans count as 0 and 1, so that their average is the frequency of `True`.

    Args:
      measure: a function of the updates that JAX can trace; it returns an array or a pytree of
        arrays.
      decay: decay rate of the average, in [0, 1).
      debias: whether to correct the bias of the average. Default: True.
      accumulator_dtype: the dtype in which the average is stored. Default: that of the measured
        value, and float32 for narrower dtypes and integers.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> large = gradtx.measure_with_ema(lambda u: gradtx.global_norm(u) > 1, decay=0.5)
      >>> tx = gradtx.monitor({"large": large})
      >>> state = tx.init(jnp.zeros(1))
      >>> for size in [3.0, 0.3]:
      ...     updates, state = tx.update(jnp.array([size]), state)
      >>> print(state.measurements["large"])
      0.33333334
    """
    average = ema(decay, debias, accumulator_dtype)

    def init(params: Params) -> EmaState:
        return average.init(_blank(jax.eval_shape(lambda p: _floating(measure(p)), params)))

    def update(
        updates: Updates, state: EmaState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, EmaState]:
        return average.update(_floating(measure(updates)), state)

    return wrapped(init, update, name="measure_with_ema", state=EmaState)


def _as_transformation(
    measure: TransformationLike | Callable[[Updates], PyTree],
) -> GradientTransformation:
    if callable(measure):
        return stateless(lambda updates, params: measure(updates))
    return with_extra_args_support(measure)


def _floating(value: PyTree) -> PyTree:
    """Casts leaves to floating arrays, of which an average can be taken."""

    def one(x: ArrayLike) -> Array:
        dtype = jnp.result_type(x)
        floating = dtype if jnp.issubdtype(dtype, jnp.inexact) else default_float()
        return jnp.asarray(x, compute_dtype(floating))

    return jax.tree.map(one, value)


def _blank(avals: PyTree) -> PyTree:
    """Returns zeros, the values before the first measurement."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, compute_dtype(x.dtype)), avals)


def _store(new: PyTree, old: PyTree, function: str, name: str) -> PyTree:
    """Copies a measurement to new buffers, in the dtypes of the state."""
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            f"{function}: the measurement {name!r} is {jax.tree.structure(new)}, but was "
            f"{jax.tree.structure(old)} at init"
        )

    def one(x: ArrayLike, kept: ArrayLike) -> Array:
        if jnp.shape(x) != jnp.shape(kept):
            raise ValueError(
                f"{function}: the measurement {name!r} has shape {jnp.shape(x)}, but had "
                f"{jnp.shape(kept)} at init"
            )
        return jnp.array(x, dtype=jnp.result_type(kept), copy=True)

    return jax.tree.map(one, new, old)
