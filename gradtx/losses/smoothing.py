"""Label smoothing."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar
from gradtx.losses.arguments import Axis, accumulator, axes_of, broadcast_shape, floating


def smooth_labels(
    labels: ArrayLike,
    alpha: Scalar,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Label smoothing: `(1 - alpha) * labels + alpha / n` for `n` classes.

    A part of the probability of a one-hot label is shared among all classes, so that no logit is
    driven to infinity. Section 7 of "Rethinking the Inception architecture for computer vision"
    (arXiv:1512.00567).

    Args:
      labels: the probabilities of the classes, usually one-hot, floating-point,
        `[..., classes]`.
      alpha: the part that is shared, in [0, 1].
      axis: the axis or axes that hold the classes; `None` for all. Default: the last.
      where: which classes take part, a mask that broadcasts to `labels`: the others are not counted
        in `n`, and are returned unchanged. Default: `None`, all.

    Returns:
      The smoothed labels, of the shape and dtype of `labels`.

    Raises:
      TypeError: if `labels` are not floating-point.
      ValueError: if `where` does not broadcast to `labels`, there is no such axis, or `alpha` is a
        number outside of [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> losses.smooth_labels(jnp.array([0.0, 1.0, 0.0, 0.0]), 0.1).tolist()
      [0.025, 0.925, 0.025, 0.025]
    """
    name = "smooth_labels"
    labels = floating(name, "labels", labels)
    if isinstance(alpha, (int, float)) and not 0 <= alpha <= 1:
        raise ValueError(f"{name}: alpha must be in [0, 1], got {alpha}")
    taking_part = jnp.ones(labels.shape, bool)
    if where is not None:
        shape = broadcast_shape(name, labels=labels.shape, where=jnp.shape(where))
        if shape != labels.shape:
            raise ValueError(
                f"{name}: where of shape {jnp.shape(where)} does not broadcast to labels of shape "
                f"{labels.shape}"
            )
        taking_part = jnp.broadcast_to(jnp.asarray(where, bool), shape)
    p = labels.astype(accumulator(labels.dtype))
    axes = axes_of(name, "labels", p, axis)
    n = jnp.sum(taking_part, axis=axes, keepdims=True).astype(p.dtype)
    smooth = (1 - alpha) * p + alpha / jnp.maximum(n, 1)
    return jnp.where(taking_part, smooth, p).astype(labels.dtype)
