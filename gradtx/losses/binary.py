"""Losses for binary labels, with the score as a logit."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar
from gradtx.losses.arguments import elementwise, floating, weighted


def _cross_entropy(z: Array, y: Array) -> Array:
    return weighted(y, jax.nn.softplus(-z)) + weighted(1 - y, jax.nn.softplus(z))


def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    r"""Cross entropy between the sigmoid of a logit and the probability of a class.

    With a logit `z` and the probability `y`::

        loss = -y * log(sigmoid(z)) - (1 - y) * log(1 - sigmoid(z))
        loss = y * softplus(-z) + (1 - y) * softplus(z)

    where a term of probability 0 is 0, even at an infinite logit. Its gradient is `sigmoid(z) - y`.
    Classes that do not exclude each other have one such loss each.

    Args:
      logits: the log-odds, floating-point, of any shape.
      labels: the probabilities, in [0, 1]; 0 and 1, or booleans, for hard labels. Of the shape of
        `logits`, or one that broadcasts with it.

    Returns:
      The loss of each element, of the dtype that `logits` and `labels` promote to.

    Raises:
      TypeError: if `logits` are not floating-point.
      ValueError: if the shapes do not broadcast, or if their ranks differ and neither is the shape
        that they broadcast to.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.array([2.0, -2.0, 0.0])
      >>> losses.sigmoid_binary_cross_entropy(logits, jnp.array([1, 1, 0])).tolist()
      [0.1269, 2.1269, 0.6931]
    """
    name = "sigmoid_binary_cross_entropy"
    floating(name, "logits", logits)
    z, y, dtype = elementwise(name, logits=logits, labels=labels)
    return _cross_entropy(z, y).astype(dtype)


def sigmoid_focal_loss(
    logits: ArrayLike, labels: ArrayLike, *, alpha: Scalar | None = None, gamma: Scalar = 2.0
) -> Array:
    r"""Focal loss: cross entropy of a logit, with small weights on predictions that are right.

    With a logit `z` and the probability `y`::

        q    = y * sigmoid(z) + (1 - y) * (1 - sigmoid(z))
        w    = y * alpha + (1 - y) * (1 - alpha)
        loss = w * (1 - q)**gamma * sigmoid_binary_cross_entropy(z, y)

    where `q` is the probability of the label, and `w` is 1 without `alpha`.

    "Focal loss for dense object detection" (arXiv:1708.02002).

    Args:
      logits: the log-odds, floating-point, of any shape.
      labels: the probabilities, in [0, 1]; 0 and 1 for hard labels. Of the shape of `logits`, or
        one that broadcasts with it.
      alpha: the weight of label 1, where label 0 has `1 - alpha`; in [0, 1]. Default: `None`, for
        weights of 1.
      gamma: the exponent with which the weight of right predictions falls, not negative; 0 for
        equal weights. Default: 2.

    Returns:
      The loss of each element, of the dtype that `logits` and `labels` promote to.

    Raises:
      TypeError: if `logits` are not floating-point.
      ValueError: if the shapes do not broadcast, or if their ranks differ and neither is the shape
        that they broadcast to.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.array([2.0, -2.0])
      >>> losses.sigmoid_focal_loss(logits, jnp.array([1, 1])).tolist()
      [0.0018, 1.6501]
    """
    name = "sigmoid_focal_loss"
    floating(name, "logits", logits)
    z, y, dtype = elementwise(name, logits=logits, labels=labels)
    # 1 - q without cancellation. Its powers have infinite derivatives at 0 if gamma is small. Below
    # the floor the loss is 0 in any dtype, and second derivatives stay finite.
    wrong = y * jax.nn.sigmoid(-z) + (1 - y) * jax.nn.sigmoid(z)
    wrong = jnp.maximum(wrong, float(jnp.finfo(z.dtype).tiny) ** 0.5)
    loss = wrong**gamma * _cross_entropy(z, y)
    if alpha is not None:
        loss = (y * alpha + (1 - y) * (1 - alpha)) * loss
    return loss.astype(dtype)
