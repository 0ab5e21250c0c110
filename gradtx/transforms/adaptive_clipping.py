"""Clipping updates relative to the norms of the parameters."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._arguments import MisfitError, axes_within
from gradtx.engine.base import Array, EmptyState, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times, widen
from gradtx.engine.rules import Slots
from gradtx.transforms.clipping import shrinking_factor
from gradtx.tree.norms import norms

AdaptiveGradClipState = EmptyState


@piece
def adaptive_grad_clip(
    clipping: Scalar, eps: Scalar = 1e-3, axis: int | tuple[int, ...] | None = None
) -> GradientTransformation:
    """Clips the gradient of each unit to a multiple of the norm of that unit's weights.

    `g * min(1, clipping * max(norm(p), eps) / norm(g))`, where `norm` is taken over the weights
    that lead to one output; see `unitwise_norm`. Zero gradients stay zero. A unit whose norm is not
    finite is returned unchanged, so that guards can detect it.

    Args:
      clipping: the largest ratio of the two norms.
      eps: the lower bound of the weights' norm, so that units can leave zero. Default: 1e-3.
      axis: the axes of a unit. Default: chosen by the number of axes, as in `unitwise_norm`.

    Raises:
      ValueError: `update` was called without params, or a leaf has more than five axes and `axis`
        is not given, or it has no such axis.

    Source: Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization",
    arXiv:2102.06171, equation 3.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adaptive_grad_clip(0.1)
      >>> params = jnp.array([[3.0, 30.0], [4.0, 40.0]])  # two units, with norms 5 and 50
      >>> print(tx.update(jnp.ones((2, 2)), tx.init(params), params)[0])
      [[0.35... 1. ]
       [0.35... 1. ]]
    """

    def update(g: Array, s: Slots, step: None, p: Array) -> tuple[Array, Slots]:
        of_p, of_g = norms(p, g, axis=_unit(g.shape, axis))
        largest = times(clipping, jnp.maximum(of_p, eps))
        return unitwise_clip(of_g, largest, g, div_eps=0.0), Slots()

    return leafwise(AdaptiveGradClipState, None, update, params=True, name="adaptive_grad_clip")


def unitwise_norm(x: ArrayLike, axis: int | tuple[int, ...] | None = None) -> Array:
    """Returns, for each element, the Euclidean norm of the unit to which it belongs.

    A unit holds the weights that lead to one output. JAX's layers have outputs on the last axis: a
    unit of a matrix is a column, and a unit of a convolution's kernel has one index on the last
    axis. A scalar or a vector is one unit (axes of length 1 are not counted). With three axes, as
    in projections to attention heads, the last two are outputs.

    Args:
      x: an array with up to five axes, or any number of axes if `axis` is given; half precision is
        squared and summed in float32.
      axis: the axes of the sum. Default: all of a vector, the first of two or three axes, all but
        the last of four or five.

    Returns:
      A real array of the shape of `x`, float32 or wider. Where a norm is 0, its derivative is 0.

    Raises:
      ValueError: `x` has more than five axes, and `axis` was not given, or it has no such axis.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.transforms.unitwise_norm(jnp.array([[3.0, 0.0], [4.0, 2.0]])))
      [[5. 2.]
       [5. 2.]]
    """
    x = widen(x)
    try:
        unit = _unit(x.shape, axis)
    except MisfitError as e:
        raise ValueError(f"unitwise_norm: x {e}") from None
    return jnp.broadcast_to(norms(x, axis=unit)[0], x.shape)


def _unit(shape: tuple[int, ...], axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    axes = len(shape)
    if axis is not None:
        return axes_within(axis, axes)
    if axes > 5:
        raise MisfitError(
            f"has shape {shape}; for more than five axes, give the axes of a unit as `axis`"
        )
    if sum(n != 1 for n in shape) <= 1:
        return tuple(range(axes))
    return (0,) if axes <= 3 else tuple(range(axes - 1))


def unitwise_clip(
    g_norm: float | Array, max_norm: float | Array, grad: ArrayLike, div_eps: Scalar = 1e-6
) -> Array:
    """Scales a gradient down where its norm is too large.

    `grad * max_norm / max(g_norm, div_eps)` where `g_norm > max_norm`, else `grad`.

    Args:
      g_norm: the norm of the gradient, of a shape that broadcasts to that of `grad`.
      max_norm: the largest norm, likewise.
      grad: the gradient, of any shape.
      div_eps: the lower bound of the divisor. Gradients with smaller norms are scaled down too far,
        so `adaptive_grad_clip` sets `div_eps` to 0. Default: 1e-6.

    Returns:
      An array of the shape and dtype of `grad`, or of a floating dtype if `grad` is integer.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.transforms.unitwise_clip(5.0, 1.0, jnp.array([3.0, 4.0])))
      [0.6 0.8]
    """
    factor = shrinking_factor(jnp.asarray(g_norm), max_norm, div_eps)
    scaled = widen(grad) * factor
    dtype = jnp.result_type(grad)
    return scaled.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else scaled
