"""Transforming elements, aggregating them, and passing the result to an optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    Updates,
    with_extra_args_support,
)
from gradtx.experimental.aggregating.types import Aggregator, PerElementUpdates


def process(
    preprocessor: GradientTransformation,
    aggregator: GradientTransformation | Aggregator,
    postprocessor: GradientTransformation,
    aggregator_has_aux: bool = False,
) -> GradientTransformation | Aggregator:
    """Chains a transformation of elements, their aggregation, and an optimizer.

    The state of an aggregator that accumulates over several calls has a field `ready`, whether the
    aggregation is complete. Until then updates are zero and the postprocessor does not run.

    Args:
      preprocessor: a transformation of the updates of elements.
      aggregator: a transformation from these to updates of the parameters.
      postprocessor: a transformation of the latter, such as an optimizer.
      aggregator_has_aux: whether the aggregator returns a pair: the updates and a dict of extra
        arguments for the postprocessor. Default: False.

    Returns:
      An `Aggregator` if `aggregator` is one, otherwise a `GradientTransformation`. Its state is the
      tuple of the three states.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.experimental import aggregating
      >>> clip = gradtx.stateless(lambda g, _: jnp.clip(g, -1, 1))  # each example's gradient
      >>> tx = aggregating.process(
      ...     clip, aggregating.average_per_element_updates(), gradtx.sgd(1.0)
      ... )
      >>> gradients = jnp.array([0.5, -0.5, 100.0])
      >>> print(f"{tx.update(gradients, tx.init(jnp.zeros(())))[0]:.4f}")
      -0.3333
    """
    pre, aggregate, post = map(with_extra_args_support, (preprocessor, aggregator, postprocessor))

    def init(params: Params) -> OptState:
        return pre.init(params), aggregate.init(params), post.init(params)

    def update(
        updates: PerElementUpdates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        pre_state, aggregate_state, post_state = state
        updates, pre_state = pre.update(updates, pre_state, params, **extra)
        updates, aggregate_state = aggregate.update(updates, aggregate_state, params, **extra)
        if aggregator_has_aux:
            updates, aux = updates
            extra = extra | aux

        def run() -> tuple[Updates, OptState]:
            return post.update(updates, post_state, params, **extra)

        def wait() -> tuple[Updates, OptState]:
            shapes, _ = jax.eval_shape(run)
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), post_state

        ready = _ready(aggregate_state)
        if isinstance(ready, Tracer):
            updates, post_state = lax.cond(ready, run, wait)
        else:  # `lax.cond` would be compiled at every call
            updates, post_state = run() if ready else wait()
        return updates, (pre_state, aggregate_state, post_state)

    kind = Aggregator if isinstance(aggregator, Aggregator) else GradientTransformation
    return kind(init, update)


def _ready(state: OptState) -> bool | Array:
    """Returns whether all accumulations in an aggregator's state are complete."""

    def accumulates(x: PyTree) -> bool:
        return hasattr(x, "ready")

    ready: bool | Array = True
    for part in jax.tree.leaves(state, is_leaf=accumulates):
        if accumulates(part):
            ready = part.ready if ready is True else ready & part.ready
    return ready
