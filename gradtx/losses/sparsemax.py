"""Losses with sparse predictions: the probabilities of classes are a projection of the scores.

"From softmax to sparsemax: a sparse model of attention and multi-label classification"
(arXiv:1602.02068), and as one family of losses "Learning with Fenchel-Young losses"
(arXiv:1901.02324).
"""

import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.losses.arguments import elementwise, pick, weighted
from gradtx.losses.margin import scores_and_labels
from gradtx.projections.simplex import onto_simplex


def _sparse_plus(z: Array) -> Array:
    """Returns 0 below -1, `z` above 1, and the parabola `(z + 1)^2 / 4` in between."""
    return (jnp.clip(z, -1, 1) + 1) ** 2 / 4 + jnp.maximum(z - 1, 0)


def sparsemax_loss(logits: ArrayLike, labels: ArrayLike) -> Array:
    r"""Sparsemax loss for binary labels.

    With a score `z`, the probability `y`, and `plus(z)`, which is 0 below -1, `z` above 1 and
    `(z + 1)^2 / 4` in between::

        loss = y * plus(-z) + (1 - y) * plus(z) - y * (1 - y)

    It is 0 if and only if `y` is the sparse sigmoid `min(max((z + 1) / 2, 0), 1)`. Section 4.4 of
    "Learning with Fenchel-Young losses" (arXiv:1901.02324).

    Args:
      logits: the scores, real numbers of any shape.
      labels: the probabilities, in [0, 1]; 0 and 1, or booleans, for hard labels. Of the shape of
        `logits`, or one that broadcasts with it.

    Returns:
      The loss of each element, of the dtype that `logits` and `labels` promote to, or the default
      float dtype for integers.

    Raises:
      TypeError: if the arguments are complex.
      ValueError: if the shapes do not broadcast, or if their ranks differ and neither is the shape
        that they broadcast to.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.array([-2.0, 0.0, 0.5, 2.0])
      >>> losses.sparsemax_loss(logits, jnp.array([1, 1, 1, 1])).tolist()
      [2.0, 0.25, 0.0625, 0.0]
    """
    z, y, dtype = elementwise("sparsemax_loss", logits=logits, labels=labels)
    loss = weighted(y, _sparse_plus(-z)) + weighted(1 - y, _sparse_plus(z)) - y * (1 - y)
    return loss.astype(dtype)


def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    r"""Sparsemax loss of several classes.

    With the scores `s` of one example, its class `y` and `p = projection_simplex(s)`::

        loss = sum(p[k] * s[k] - p[k]**2 / 2, over k) - s[y] + 1 / 2

    Its gradient is `p`, minus 1 at `y`. It is 0 where the score of `y` exceeds all others by at
    least 1. "From softmax to sparsemax" (arXiv:1602.02068).

    Args:
      scores: real numbers, `[..., classes]`.
      labels: the class indices, integers of the shape of `scores` without the last axis, or one
        that broadcasts with it. An index that is not a class, including a negative one, gives NaN,
        as no error can be raised under `jit`.

    Returns:
      The loss of each example, of the dtype of `scores`.

    Raises:
      TypeError: if `labels` are not integers.
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> scores = jnp.array([[1.0, 2.0, 0.5], [0.0, 0.2, 0.1]])
      >>> losses.multiclass_sparsemax_loss(scores, jnp.array([0, 1])).tolist()
      [1.0, 0.2433]
    """
    s, y, dtype = scores_and_labels("multiclass_sparsemax_loss", scores, labels)
    # A shift of the scores does not change the loss, and small scores lose no digits.
    s = s - stop_gradient(jnp.max(s, axis=-1, keepdims=True))
    p = onto_simplex(s, 1)
    expected = jnp.sum(weighted(p, s) - p * p / 2, axis=-1)
    return (expected - pick(s, y)[..., 0] + 0.5).astype(dtype)
