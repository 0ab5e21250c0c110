"""Readings of the line searches in a state, those of gradtx and of optax."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, GradientTransformation, OptState
from gradtx.engine.pipeline import pipeline_of
from gradtx.linesearch import ScaleByBacktrackingLinesearchState, ScaleByZoomLinesearchState


def searches_in(state: OptState) -> list[Any]:
    """Returns the line-search states in a state, ours and optax's, in the order of the chain.

    Args:
      state: the state of a transformation.
    """

    def is_search(node: Any) -> bool:
        info = node.info if "info" in getattr(node, "_fields", ()) else None
        return "num_linesearch_steps" in getattr(info, "_fields", ())

    return [node for node in jax.tree.leaves(state, is_leaf=is_search) if is_search(node)]


def not_fulfilled(search: Any) -> Array:
    """Returns whether a line search ended without meeting its conditions.

    Args:
      search: its state.
    """
    errors = [x for name, x in search.info._asdict().items() if name.endswith("_error")]
    return functools.reduce(jnp.logical_or, [error > 0 for error in errors])


def evaluations(search: Any) -> Array:
    """Returns how often a line search evaluated the function and its gradient, `[2]`.

    Args:
      search: its state.
    """
    steps = search.info.num_linesearch_steps
    if "curvature_error" in search.info._fields:
        return jnp.stack([steps, steps])
    # Backtracking needs no gradients; it computes at most the one that it keeps.
    kept = search.grad is not None
    return jnp.stack([steps, jnp.where(search.learning_rate > 0, int(kept), 0)])


def ends_in_a_search(tx: GradientTransformation) -> bool:
    """Returns whether the last link is a line search, whose last point is then the next point.

    Args:
      tx: the transformation.
    """
    last = pipeline_of(tx).links[-1:]
    kinds = (ScaleByZoomLinesearchState, ScaleByBacktrackingLinesearchState)
    return bool(last) and last[0].state in kinds
