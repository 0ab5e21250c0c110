"""Scaling updates by the size of the parameters."""

import jax.numpy as jnp

from gradtx.engine.base import Array, EmptyState, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times, value_of
from gradtx.engine.rules import Slots
from gradtx.tree.norms import norms, root_mean_square


@piece
def scale_by_param_block_norm(min_scale: Scalar = 1e-3) -> GradientTransformation:
    """Multiplies each leaf's update by the norm of that leaf's parameters.

    `g * max(norm(p), min_scale)`, where `norm(p) = sqrt(sum(|p|^2))` is taken over one leaf.

    Args:
      min_scale: the smallest factor, so that parameters can leave zero. Default: 1e-3.

    Raises:
      ValueError: `update` was called without params.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arXiv:1804.04235, section 8, which takes the root mean square instead.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_param_block_norm()
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(jnp.ones(2), tx.init(params), params)[0])
      [5. 5.]
    """
    return leafwise(
        EmptyState,
        None,
        _by_norm,
        params=True,
        scalars={"min_scale": min_scale},
        name="scale_by_param_block_norm",
    )


def _by_norm(g: Array, s: Slots, step: None, p: Array) -> tuple[Array, Slots]:
    return times(jnp.maximum(norms(p)[0], value_of(s.min_scale)), g), Slots()


@piece
def scale_by_param_block_rms(min_scale: Scalar = 1e-3) -> GradientTransformation:
    """Multiplies each leaf's update by the root mean square of that leaf's parameters.

    `g * max(rms(p), min_scale)`, where `rms(p) = sqrt(mean(|p|^2))` is taken over one leaf.

    Args:
      min_scale: the smallest factor, so that parameters can leave zero. Default: 1e-3.

    Raises:
      ValueError: `update` was called without params.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arXiv:1804.04235, section 8.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_param_block_rms()
      >>> params = jnp.array([3.0, 3.0])
      >>> print(tx.update(jnp.ones(2), tx.init(params), params)[0])
      [3. 3.]
    """
    return leafwise(
        EmptyState,
        None,
        _by_rms,
        params=True,
        scalars={"min_scale": min_scale},
        name="scale_by_param_block_rms",
    )


def _by_rms(g: Array, s: Slots, step: None, p: Array) -> tuple[Array, Slots]:
    rms = root_mean_square(p)
    return times(jnp.maximum(rms, value_of(s.min_scale)), g), Slots()
