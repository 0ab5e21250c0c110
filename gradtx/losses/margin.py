"""Losses on the lead of the right answer: perceptron losses, and hinge losses with a margin."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.losses.arguments import (
    accumulator,
    class_numbers,
    common_dtype,
    elementwise,
    examples,
    pick,
)


def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Hinge loss of a score: `max(0, 1 - y * s)`, with the score `s` and the sign `y`.

    "Support-vector networks" (Cortes and Vapnik, 1995).

    Args:
      predictor_outputs: the scores, real numbers of any shape.
      targets: the right signs, -1 or 1, of the same shape or one that broadcasts with it.

    Returns:
      The loss of each element, of the dtype that both promote to, or the default float dtype for
      integers. At the kink the gradient is the mean of both sides.

    Raises:
      TypeError: if the arguments are complex.
      ValueError: if the shapes do not broadcast, or if their ranks differ and neither is the shape
        that they broadcast to.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> losses.hinge_loss(jnp.array([0.5, 3.0, 2.0]), jnp.array([1, 1, -1])).tolist()
      [0.5, 0.0, 3.0]
    """
    s, y, dtype = elementwise("hinge_loss", predictor_outputs=predictor_outputs, targets=targets)
    return jnp.maximum(0, 1 - y * s).astype(dtype)


def perceptron_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Perceptron loss of a score: `max(0, -y * s)`, with the score `s` and the sign `y`.

    "The perceptron: a probabilistic model for information storage and organization in the brain"
    (Rosenblatt, 1958).

    Args:
      predictor_outputs: the scores, real numbers of any shape.
      targets: the right signs, -1 or 1, of the same shape or one that broadcasts with it.

    Returns:
      The loss of each element, of the dtype that both promote to, or the default float dtype for
      integers. At the kink the gradient is the mean of both sides.

    Raises:
      TypeError: if the arguments are complex.
      ValueError: if the shapes do not broadcast, or if their ranks differ and neither is the shape
        that they broadcast to.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> losses.perceptron_loss(jnp.array([0.5, 3.0, 2.0]), jnp.array([1, 1, -1])).tolist()
      [0.0, 0.0, 2.0]
    """
    s, y, dtype = elementwise(
        "perceptron_loss", predictor_outputs=predictor_outputs, targets=targets
    )
    return jnp.maximum(0, -y * s).astype(dtype)


def _largest_lead(name: str, scores: ArrayLike, labels: ArrayLike, margin: float) -> Array:
    """Returns `max_k (s[k] - s[y] + margin * [k != y])`."""
    s, y, dtype = scores_and_labels(name, scores, labels)
    k = jnp.arange(s.shape[-1])
    wanted = k == y[..., None]
    # The right class leads itself by 0. A class at -inf has a lead of -inf, even where inf - inf is
    # nan.
    lead = jnp.where(wanted, 0, jnp.where(jnp.isneginf(s), s, s - pick(s, y) + margin))
    return jnp.max(lead, axis=-1).astype(dtype)


def scores_and_labels(
    name: str, scores: ArrayLike, labels: ArrayLike
) -> tuple[Array, Array, np.dtype]:
    """Casts scores to the dtype to compute in, and broadcasts labels to the scores' examples."""
    y, dtype = class_numbers(name, labels), common_dtype(scores)
    s = jnp.asarray(scores).astype(accumulator(dtype))
    if not s.ndim or not s.shape[-1]:
        raise ValueError(f"{name}: scores of shape {s.shape} have no classes along the last axis")
    return *examples(name, s, y, f"scores of shape {s.shape}"), dtype


def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Hinge loss of several classes: `max(s[k] + [k != y], over k) - s[y]`.

    `[k != y]` is 1 or 0. The loss is 0 where the score of the right class `y` exceeds all others by
    at least 1.

    "On the algorithmic implementation of multiclass kernel-based vector machines" (Crammer and
    Singer, JMLR 2001).

    Args:
      scores: real numbers, `[..., classes]`.
      labels: the class indices, integers of the shape of `scores` without the last axis, or one
        that broadcasts with it. An index that is not a class, including a negative one, gives NaN,
        as no error can be raised under `jit`.

    Returns:
      The loss of each example, of the dtype of `scores`. Where classes tie, they share the
      gradient.

    Raises:
      TypeError: if `labels` are not integers.
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> scores = jnp.array([[1.0, 2.0, 0.5], [3.0, 0.0, 1.0]])
      >>> losses.multiclass_hinge_loss(scores, jnp.array([0, 0])).tolist()
      [2.0, 0.0]
    """
    return _largest_lead("multiclass_hinge_loss", scores, labels, 1.0)


def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Perceptron loss of several classes: `max_k s[k] - s[y]`.

    It is 0 where no score is above that of the right class `y`.

    "Discriminative training methods for hidden Markov models: theory and experiments with
    perceptron algorithms" (Collins, EMNLP 2002).

    Args:
      scores: real numbers, `[..., classes]`.
      labels: the class indices, integers of the shape of `scores` without the last axis, or one
        that broadcasts with it. An index that is not a class, including a negative one, gives NaN,
        as no error can be raised under `jit`.

    Returns:
      The loss of each example, of the dtype of `scores`. Where classes tie, they share the
      gradient.

    Raises:
      TypeError: if `labels` are not integers.
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> scores = jnp.array([[1.0, 2.0, 0.5], [3.0, 0.0, 1.0]])
      >>> losses.multiclass_perceptron_loss(scores, jnp.array([0, 0])).tolist()
      [1.0, 0.0]
    """
    return _largest_lead("multiclass_perceptron_loss", scores, labels, 0.0)
