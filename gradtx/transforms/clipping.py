"""Clipping updates."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx import tree
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    OptState,
    Params,
    Scalar,
    Updates,
    init_empty_state,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times, value_of
from gradtx.engine.rules import Slots
from gradtx.engine.scalars import finished
from gradtx.tree.norms import rescale, root_mean_square

ClipState = EmptyState
ClipByGlobalNormState = EmptyState


@piece
def clip(max_delta: Scalar) -> GradientTransformation:
    """Clips every element of the updates to `[-max_delta, max_delta]`.

    Args:
      max_delta: the largest magnitude of an element.

    Raises:
      ValueError: `max_delta` is negative.
      TypeError: a parameter or an update is complex.

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
        scalars={"max_delta": max_delta},
        integers=True,
        name="clip",
    )


def _clip(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
    return jnp.clip(g, -s.max_delta, value_of(s.max_delta)), Slots()


@piece
def clip_by_global_norm(max_norm: Scalar) -> GradientTransformation:
    """Scales all updates by one factor so that their global norm is at most `max_norm`.

    `g * min(1, max_norm / norm(updates))`, with the norm over all leaves, in float32 or wider. Zero
    updates stay zero. If the norm is not finite, the updates are returned unchanged, so that guards
    can detect it.

    Args:
      max_norm: the largest Euclidean norm of all updates together.

    Raises:
      TypeError: a leaf is an integer, and the result would be rounded.

    Source: Pascanu et al., "On the difficulty of training Recurrent Neural Networks",
    arXiv:1211.5063.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.clip_by_global_norm(1.0)
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(None))[0])
      [0.6 0.8]
    """

    def update(
        updates: Updates, state: OptState, params: Params | None, **extra: Any
    ) -> tuple[Updates, OptState]:
        return _shrink(updates, max_norm), state

    return coupled(ClipByGlobalNormState, init_empty_state, update, name="clip_by_global_norm")


@compiled_when_concrete
def _shrink(updates: Updates, max_norm: Scalar) -> Updates:
    factor = finished(shrinking_factor(tree.norm(updates), max_norm))
    return jax.tree.map(lambda g: rescale(g, factor), updates)


@piece
def clip_by_block_rms(threshold: Scalar) -> GradientTransformation:
    """Scales each leaf so that its root mean square is at most `threshold`.

    `g * min(1, threshold / rms(g))`, where `rms(g) = sqrt(mean(|g|^2))` over the elements of that
    leaf. Zero updates stay zero. A leaf whose `rms` is not finite is returned unchanged, so that
    guards can detect it.

    Args:
      threshold: the largest root mean square of a leaf.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arXiv:1804.04235, section 6.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.clip_by_block_rms(1.0)
      >>> updates = {"large": jnp.array([6.0, 8.0]), "small": jnp.array([0.6, 0.8])}
      >>> print(tx.update(updates, tx.init(updates))[0])
      {'large': Array([0.84..., 1.13...], dtype=float32), 'small': Array([0.6, 0.8], dtype=float32)}
    """
    return leafwise(
        EmptyState, None, _clip_by_rms, scalars={"threshold": threshold}, name="clip_by_block_rms"
    )


def _clip_by_rms(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
    return times(shrinking_factor(root_mean_square(g), s.threshold), g), Slots()


def shrinking_factor(size: Array, limit: Scalar, least: Scalar | None = None) -> Array:
    """Returns the factor that reduces a norm to its limit: `limit / size`, or 1.

    It is 1 where the norm is not above the limit, or not finite. The derivative of the factor is
    finite everywhere, also where norm and limit are 0.

    Args:
      size: the norm, real and not negative, of any shape.
      limit: the largest norm, of a shape that broadcasts to that of `size`.
      least: the lower bound of the divisor. Default: `None`, there is none.
    """
    too_large = (size > limit) & (size < jnp.inf)
    divisor = size if least is None else jnp.maximum(size, least)
    # The division comes last: XLA recomputes a leaf's factor in the kernel that multiplies the
    # leaf, unless it ends in a division.
    return jnp.where(too_large, value_of(limit), 1) / jnp.where(too_large, divisor, 1)
