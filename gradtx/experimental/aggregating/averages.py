"""Averages over the elements of a batch (its examples), and over micro-batches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._roles import Count, Shared, Slot, declared
from gradtx.engine.base import (
    EmptyState,
    GradientTransformation,
    OptState,
    Params,
    Updates,
    init_empty_state,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.numerics import widen
from gradtx.engine.pipeline import wrapped
from gradtx.experimental.aggregating.types import Aggregator, PerElementUpdates, axes_of
from gradtx.transforms.combining import chain, identity


def average_per_element_updates(per_elt_axis: int | Sequence[int] = 0) -> Aggregator:
    """Returns an aggregator that averages over elements; half precision is averaged in float32.

    Args:
      per_elt_axis: the axis or axes of elements. Default: 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> mean = aggregating.average_per_element_updates()
      >>> print(mean.update(jnp.array([[1.0, 2.0], [3.0, 4.0]]), mean.init(None))[0])
      [2. 3.]
    """
    axes = axes_of(per_elt_axis)

    @compiled_when_concrete
    def average(updates: PerElementUpdates) -> Updates:
        return jax.tree.map(
            lambda g: jnp.mean(widen(g), axis=axes).astype(jnp.result_type(g)), updates
        )

    def update(
        updates: PerElementUpdates, state: EmptyState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, EmptyState]:
        del params, extra
        return average(updates), state

    return Aggregator(init_empty_state, update)


@declared
class AccumulateAvgUpdatesState(NamedTuple):
    """The state of `accumulate_avg_updates`.

    Attributes:
      micro_step: the number of micro-batches in the average so far.
      ready: whether the last call completed an average.
      avg_grad: the average so far, in float32 for half precision.
    """

    micro_step: Count
    ready: Shared
    avg_grad: Slot


def accumulate_avg_updates(accumulation_steps: int) -> GradientTransformation:
    """Averages the updates of several calls, and returns zeros until the average is complete.

    `avg_grad = avg_grad + (g - avg_grad) / (micro_step + 1)`. After `accumulation_steps` calls it
    is returned, and a new average begins. In `process`, the postprocessor only runs at these calls.

    Args:
      accumulation_steps: the number of calls in an average; with 1, it is `identity()`.

    Raises:
      ValueError: `accumulation_steps` is less than 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.accumulate_avg_updates(2)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [1.0, 3.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates)
      [0.]
      [2.]
    """
    if accumulation_steps < 1:
        raise ValueError(
            f"accumulate_avg_updates: accumulation_steps must be positive, got {accumulation_steps}"
        )
    if accumulation_steps == 1:
        return identity()

    def init(params: Params) -> AccumulateAvgUpdatesState:
        return AccumulateAvgUpdatesState(
            micro_step=jnp.zeros((), jnp.int32),
            ready=jnp.zeros((), bool),
            avg_grad=jax.tree.map(lambda p: jnp.zeros_like(widen(p)), params),
        )

    @compiled_when_concrete
    def accumulate(
        updates: Updates, state: AccumulateAvgUpdatesState
    ) -> tuple[Updates, AccumulateAvgUpdatesState]:
        step = state.micro_step + 1
        ready = step >= accumulation_steps
        average = jax.tree.map(
            lambda a, g: a + (jnp.asarray(g).astype(a.dtype) - a) / step, state.avg_grad, updates
        )
        given = jax.tree.map(
            lambda a, g: jnp.where(ready, a, 0).astype(jnp.result_type(g)), average, updates
        )
        return given, AccumulateAvgUpdatesState(
            micro_step=jnp.where(ready, 0, step),
            ready=ready,
            avg_grad=jax.tree.map(lambda a: jnp.where(ready, 0, a), average),
        )

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        del params, extra
        return accumulate(updates, state)

    name, own = "accumulate_avg_updates", AccumulateAvgUpdatesState
    return wrapped(init, update, name=name, state=own)


def average_incrementally_updates(
    per_elt_axis: int | Sequence[int] | None, accumulation_steps: int
) -> Aggregator | GradientTransformation:
    """Returns an aggregator that averages over elements and then over several calls.

    Args:
      per_elt_axis: the axis or axes of elements; `None` if the updates have none.
      accumulation_steps: the number of calls in an average, see `accumulate_avg_updates`.

    Returns:
      An `Aggregator`; without elements a `GradientTransformation`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.average_incrementally_updates(0, 2)
      >>> state = tx.init(jnp.zeros(()))
      >>> for g in [[0.0, 2.0], [2.0, 4.0]]:
      ...     updates, state = tx.update(jnp.array(g), state)
      ...     print(updates)
      0.0
      2.0
    """
    accumulate = accumulate_avg_updates(accumulation_steps)
    if per_elt_axis is None:
        return accumulate
    average = average_per_element_updates(per_elt_axis)
    return Aggregator(*chain(GradientTransformation(*average), accumulate))
