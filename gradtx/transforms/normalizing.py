"""Normalizing updates by their global norm."""

import dataclasses

import jax
import jax.numpy as jnp

from gradtx import tree
from gradtx.engine.base import EmptyState, GradientTransformation, Params, Scalar, Updates
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.pipeline import with_links
from gradtx.engine.scalars import finished
from gradtx.transforms.without_state import of_function
from gradtx.tree.norms import rescale

NormalizeState = EmptyState


@piece
def normalize_by_update_norm(
    scale_factor: Scalar = 1.0, eps: Scalar = 1e-6
) -> GradientTransformation:
    """Divides all updates by their global norm.

    `g * scale_factor / (norm(updates) + eps)`, with the norm over all leaves, in float32 or wider.
    Zero updates stay zero.

    Args:
      scale_factor: the norm of the result (if `eps` is 0). Default: 1.
      eps: added to the norm. Default: 1e-6.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.normalize_by_update_norm(eps=0.0)
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(None))[0])
      [0.6 0.8]
    """

    @compiled_when_concrete
    def normalize(updates: Updates, size: Scalar, eps: Scalar) -> Updates:
        denominator = tree.norm(updates) + eps
        positive = denominator > 0
        factor = finished(jnp.where(positive, size / jnp.where(positive, denominator, 1), 0))
        return jax.tree.map(lambda g: rescale(g, factor), updates)

    def over_tree(updates: Updates, params: Params | None) -> Updates:
        del params
        return normalize(updates, scale_factor, eps)

    return of_function(over_tree, "normalize_by_update_norm")


@piece
def normalize() -> GradientTransformation:
    """Divides all updates by their global norm: `normalize_by_update_norm` with `eps=0`.

    `g / norm(updates)`, with the norm over all leaves, in float32 or wider. Zero updates stay zero.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.normalize()
      >>> print(tx.update(jnp.array([3e-9, 4e-9]), tx.init(None))[0])
      [0.6 0.8]
    """
    tx = normalize_by_update_norm(eps=0.0)
    return with_links(tx, lambda link: dataclasses.replace(link, name="normalize"))
