"""Centering gradients at zero."""

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import axes_within
from gradtx.engine.base import Array, EmptyState, GradientTransformation
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.rules import Slots


@piece
def centralize(*, output_axis: int = 0) -> GradientTransformation:
    """Subtracts from the gradient of each unit its mean, so that sums of weights do not change.

    `g - mean(g)`, with the mean over all axes except that of the outputs; the weights that lead to
    one output are a unit. Scalars and vectors are returned unchanged.

    Args:
      output_axis: the axis of the outputs: the first in kernels of PyTorch and Equinox, the last
        (-1) in those of Flax and Haiku. Default: 0, as in optax.

    Raises:
      ValueError: by `update`: a leaf with two axes or more has no such axis.

    Source: Yong et al., "Gradient Centralization: A New Optimization Technique for Deep Neural
    Networks", arXiv:2004.01461, equation 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> g = jnp.array([[1.0, 2.0], [3.0, 8.0]])
      >>> for axis in (0, -1):
      ...     tx = gradtx.centralize(output_axis=axis)
      ...     print(tx.update(g, tx.init(g))[0].tolist())
      [[-0.5, 0.5], [-2.5, 2.5]]
      [[-1.0, -3.0], [1.0, 3.0]]
    """

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        if g.ndim < 2:
            return g, Slots()
        outputs = axes_within(output_axis, g.ndim, "output_axis")
        others = [axis for axis in range(g.ndim) if axis not in outputs]
        return lax.sub(g, jnp.mean(g, others, keepdims=True)), Slots()

    return leafwise(EmptyState, None, update, name="centralize")
