"""Bounding the size of updates."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx import tree
from gradtx.base import Array, EmptyState, GradientTransformation, Params, Updates, stateless
from gradtx.concrete import compiled_when_concrete
from gradtx.leafwise import leafwise
from gradtx.numerics import rescale
from gradtx.rules import Slots

ClipState = EmptyState
ClipByGlobalNormState = EmptyState


def clip(max_delta: Any) -> GradientTransformation:
    """Clips every element of the updates to `[-max_delta, max_delta]`.

    Args:
      max_delta: the largest magnitude.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.clip(1.0)
      >>> print(tx.update(jnp.array([-3.0, 0.5]), tx.init(None))[0])
      [-1.   0.5]
    """
    return leafwise(
        EmptyState,
        None,
        _clip,
        real_only=True,
        shared=lambda step, extra: {"max_delta": max_delta},
        name="clip",
    )


def _clip(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    return jnp.clip(g, -s.max_delta, s.max_delta), Slots()


def clip_by_global_norm(max_norm: Any) -> GradientTransformation:
    """Shrinks all updates by one factor when their common norm is too large.

    `g * min(1, max_norm / norm(updates))`, the norm taken over all leaves in float32 or wider. Zero
    updates stay zero. A norm that is not finite leaves the updates as they are, for a guard to see.

    Args:
      max_norm: the largest Euclidean norm.

    Source: Pascanu et al., "On the difficulty of training Recurrent Neural Networks",
    arXiv:1211.5063.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.clip_by_global_norm(1.0)
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(None))[0])
      [0.6 0.8]
    """

    @compiled_when_concrete
    def shrink(updates: Updates, limit: Any) -> Updates:
        norm = tree.norm(updates)
        too_large = (norm > limit) & jnp.isfinite(norm)
        factor = jnp.where(too_large, limit / jnp.where(too_large, norm, 1), 1)
        return jax.tree.map(lambda g: rescale(g, factor), updates)

    def over_tree(updates: Updates, params: Params | None) -> Updates:
        del params
        return shrink(updates, max_norm)

    return stateless(over_tree)
