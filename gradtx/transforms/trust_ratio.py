"""Scaling updates by the trust ratio of each leaf."""

import jax.numpy as jnp

from gradtx.engine.base import Array, EmptyState, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times, value_of
from gradtx.engine.rules import Slots
from gradtx.tree.norms import norms

ScaleByTrustRatioState = EmptyState


@piece
def scale_by_trust_ratio(
    min_norm: Scalar = 0.0, trust_coefficient: Scalar = 1.0, eps: Scalar = 0.0
) -> GradientTransformation:
    """Scales each leaf's update to the norm of that leaf's parameters.

    `g * trust_coefficient * size(p) / (size(g) + eps)`, where `size(x) = max(norm(x), min_norm)` is
    taken over one leaf. If a size is 0, or the size of `p` is not finite, the update is returned
    unchanged.

    Args:
      min_norm: the lower bound of both norms. Default: 0.
      trust_coefficient: the norm of a leaf's update, relative to that of the leaf. Default: 1.
      eps: added to the size of the update. Default: 0.

    Raises:
      ValueError: `update` was called without params.

    Source: You et al., "Large Batch Training of Convolutional Networks", arXiv:1708.03888.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_trust_ratio()
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(jnp.array([0.0, 0.1]), tx.init(params), params)[0])
      [0. 5.]
    """
    return leafwise(
        ScaleByTrustRatioState,
        None,
        _by_trust_ratio,
        params=True,
        scalars={"min_norm": min_norm, "trust_coefficient": trust_coefficient, "eps": eps},
        name="scale_by_trust_ratio",
    )


def _by_trust_ratio(g: Array, s: Slots, step: None, p: Array) -> tuple[Array, Slots]:
    of_p, of_g = (jnp.maximum(size, value_of(s.min_norm)) for size in norms(p, g))
    defined = (of_p > 0) & (of_g > 0) & jnp.isfinite(of_p)
    ratio = s.trust_coefficient * of_p / (jnp.where(defined, of_g, 1) + s.eps)
    return times(jnp.where(defined, ratio, 1), g), Slots()
