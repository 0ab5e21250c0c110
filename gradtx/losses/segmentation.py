"""Dice losses: the lack of overlap between a predicted region and the true one."""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx._arguments import counted
from gradtx.engine.base import Array, Scalar
from gradtx.engine.concrete import is_traced
from gradtx.losses.arguments import Axis, accumulator, axes_of, common_dtype, floating


def _regions(
    name: str, predictions: ArrayLike, targets: ArrayLike, as_logits: bool, ignore_background: bool
) -> tuple[Array, Array, np.dtype]:
    """Returns both as probabilities `[..., classes]` in the dtype to compute in."""
    p, t = floating(name, "predictions", predictions), jnp.asarray(targets)
    dtype = common_dtype(p, t)
    # One class needs no axis, which may be missing from either of the two.
    if p.ndim == t.ndim - 1 and t.shape[-1] == 1:
        p = p[..., None]
    if t.ndim == p.ndim - 1 and p.shape[-1] == 1:
        t = t[..., None]
    if p.shape != t.shape or not p.ndim:
        raise ValueError(
            f"{name}: predictions of shape {jnp.shape(predictions)} need targets of the same "
            f"shape, [..., classes], got {jnp.shape(targets)}"
        )
    if not as_logits:
        _check_probabilities(name, p)
    p, t = p.astype(accumulator(dtype)), t.astype(accumulator(dtype))
    if as_logits:
        p = jax.nn.sigmoid(p) if p.shape[-1] == 1 else jax.nn.softmax(p, axis=-1)
    if ignore_background and p.shape[-1] > 1:
        p, t = p[..., 1:], t[..., 1:]
    return p, t, dtype


def _check_probabilities(name: str, p: Array) -> None:
    if is_traced(p) or not p.size:
        return  # values are not known under jit
    slack = math.sqrt(float(jnp.finfo(p.dtype).eps))
    low, high = float(p.min()), float(p.max())
    if low < -slack or high > 1 + slack:
        raise ValueError(
            f"{name}: predictions must be probabilities in [0, 1], got [{low}, {high}]"
        )
    totals = p.astype(accumulator(p.dtype)).sum(axis=-1)
    low, high = float(totals.min()), float(totals.max())
    if p.shape[-1] > 1 and (low < 1 - slack or high > 1 + slack):
        raise ValueError(
            f"{name}: predictions are not valid probability distributions: their sums over the "
            f"classes must be 1, but range from {low} to {high}"
        )


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim - 1))


def _overlap_losses(
    p: Array, t: Array, axis: Axis, smooth: Scalar, alpha: Scalar = 0.5, beta: Scalar = 0.5
) -> Array:
    both = jnp.sum(p * t, axis=axis)
    wrong = jnp.sum(alpha * p * (1 - t) + beta * t * (1 - p), axis=axis)
    # 1 - (both + smooth) / whole, without cancellation. For a class that is neither predicted nor
    # present, `wrong` is 0, and without smoothing `whole` as well.
    whole = both + wrong + smooth
    return wrong / jnp.where(whole == 0, 1, whole)


def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | Sequence[float] | None = None,
    smooth: Scalar = 1.0,
    alpha: Scalar = 0.5,
    beta: Scalar = 0.5,
    apply_softmax: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    ignore_background: bool = False,
    axis: Axis = None,
) -> Array:
    r"""Dice loss of segmentations, or Tversky loss with other `alpha` and `beta`.

    For each class, with the predicted probabilities `p` and the targets `t` of its pixels::

        both   = sum(p * t)
        excess = sum(p * (1 - t))
        missed = sum((1 - p) * t)
        loss   = 1 - (both + smooth) / (both + alpha * excess + beta * missed + smooth)

    "V-Net: fully convolutional neural networks for volumetric medical image segmentation"
    (arXiv:1606.04797); with other `alpha` and `beta`, "Tversky loss function for image segmentation
    using 3D fully convolutional deep networks" (arXiv:1706.05721).

    Args:
      predictions: logits, floating-point, `[batch, ..., classes]`. With one class they are logits
        of a sigmoid, and its axis may be left out if `targets` have it.
      targets: the true regions, one-hot or soft, of the same shape. With one class its axis may be
        left out if `predictions` have it.
      class_weights: the weight of each class's loss, `[classes]`, with one for the background even
        if that is ignored. Default: `None`, all 1.
      smooth: added to numerator and denominator, not negative. Default: 1.
      alpha: the weight of false positives. Default: 0.5.
      beta: the weight of false negatives. Default: 0.5, for which this is Dice's coefficient.
      apply_softmax: whether `predictions` are logits. If not, they are probabilities. Default:
        `True`.
      reduction: the reduction over the classes: `"mean"`, `"sum"`, or `"none"`.
        Default: `"mean"`.
      ignore_background: whether to leave out class 0, if there are several. Default: `False`.
      axis: the axis or axes of the pixels. Default: `None`, all but the first and the last.

    Returns:
      The loss of each example, `[batch]`; or `[batch, classes]` without reduction. Its dtype is the
      one that `predictions` and `targets` promote to.

    Raises:
      TypeError: if `predictions` are not floating-point.
      ValueError: if shapes differ, `class_weights` has another number of classes, `reduction` is
        unknown, `axis` includes the classes although they are still to be weighted or reduced, or
        (outside of `jit`) `predictions` should be probabilities and are not.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> truth = jnp.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
      >>> losses.dice_loss(20 * truth, truth, reduction="none").tolist()
      [[0.0, 0.0]]
      >>> losses.dice_loss(0 * truth, truth, reduction="none").tolist()
      [[0.2727, 0.3333]]
    """
    name = "dice_loss"
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be mean, sum or none, got {reduction!r}")
    p, t, dtype = _regions(name, predictions, targets, apply_softmax, ignore_background)
    axes = _spatial(p) if axis is None else axes_of(name, "predictions", p, axis)
    if p.ndim - 1 in axes and (reduction != "none" or class_weights is not None):
        raise ValueError(
            f"{name}: axis={axis} sums over the classes, the last of {p.ndim} axes, and leaves "
            f'none to weight or reduce: use reduction="none" without class_weights'
        )
    loss = _overlap_losses(p, t, axes, smooth, alpha, beta)
    if class_weights is not None:
        classes = jnp.shape(predictions)[-1] if jnp.ndim(predictions) == p.ndim else 1
        weights = jnp.asarray(class_weights)
        if weights.shape not in ((), (1,), (classes,)):
            raise ValueError(
                f"{name}: class_weights of {counted(classes, 'class', 'classes')} must have the "
                f"shape {(classes,)}, got {weights.shape}"
            )
        loss = loss * jnp.broadcast_to(weights, (classes,))[-p.shape[-1] :]
    if reduction != "none":
        loss = (jnp.mean if reduction == "mean" else jnp.sum)(loss, axis=-1)
    return loss.astype(dtype)


def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: Scalar = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> Array:
    r"""Generalized Dice loss: rare classes have as much weight as common ones.

    With the Dice losses `loss[c]` of the classes (see `dice_loss`)::

        w[c]   = 1 / n[c]^2
        result = mean(sum(w[c] * loss[c], over c) / sum(w[c], over c))

    where `n[c]` is the sum of the targets of `c` in the whole batch, and the mean is over the
    batch. A class that does not occur in the batch has weight 0. The weights are those of
    "Generalised Dice overlap as a deep learning loss function for highly unbalanced segmentations"
    (arXiv:1707.03237), which applies them inside of one fraction for all classes; this mean of
    fractions is what optax computes under this name.

    Args:
      predictions: logits, floating-point, `[batch, ..., classes]`.
      targets: the true regions, one-hot or soft, of the same shape.
      smooth: added to numerator and denominator, not negative. Default: 1.
      apply_softmax: whether `predictions` are logits. If not, they are probabilities. Default:
        `True`.
      ignore_background: whether to leave out class 0, if there are several. Default: `False`.

    Returns:
      A scalar of the dtype that `predictions` and `targets` promote to.

    Raises:
      TypeError: if `predictions` are not floating-point.
      ValueError: if shapes differ, or (outside of `jit`) `predictions` should be probabilities and
        are not.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> truth = jnp.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
      >>> losses.multiclass_generalized_dice_loss(0 * truth, truth).item()
      0.3212
    """
    name = "multiclass_generalized_dice_loss"
    p, t, dtype = _regions(name, predictions, targets, apply_softmax, ignore_background)
    loss = _overlap_losses(p, t, _spatial(p), smooth)
    volume = jnp.sum(t, axis=tuple(range(t.ndim - 1)))
    there = volume > 0
    weights = jnp.where(there, 1 / jnp.where(there, volume, 1) ** 2, 0)
    weights = jnp.where(jnp.any(there), weights, 1)  # no class is present: equal weights
    return jnp.mean(jnp.sum(loss * weights, axis=-1) / jnp.sum(weights)).astype(dtype)


def binary_dice_loss(
    predictions: ArrayLike, targets: ArrayLike, *, smooth: Scalar = 1.0, apply_sigmoid: bool = True
) -> Array:
    r"""Dice loss of one region against its background.

    With the probabilities `p` and the targets `t` of an image's pixels::

        loss = 1 - (sum(p * t) + smooth) / (sum(p + t) / 2 + smooth)

    which is `dice_loss` of one class. "V-Net: fully convolutional neural networks for volumetric
    medical image segmentation" (arXiv:1606.04797).

    Args:
      predictions: logits of a sigmoid, floating-point, `[batch, ...]` or `[batch, ..., 1]`.
      targets: the true region, 0 and 1 or soft, of the same shape apart from a last axis of 1.
      smooth: added to numerator and denominator, not negative. Default: 1.
      apply_sigmoid: whether `predictions` are logits. If not, they are probabilities. Default:
        `True`.

    Returns:
      The loss of each example, `[batch]`, of the dtype that `predictions` and `targets` promote to.

    Raises:
      TypeError: if `predictions` are not floating-point.
      ValueError: if shapes differ, or (outside of `jit`) `predictions` should be probabilities and
        are not.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> truth = jnp.array([[1.0, 1.0, 0.0]])
      >>> losses.binary_dice_loss(jnp.array([[0.0, 0.0, 0.0]]), truth).tolist()
      [0.2727]
    """
    name = "binary_dice_loss"
    predictions, targets = floating(name, "predictions", predictions), jnp.asarray(targets)
    if predictions.shape[-1:] != (1,):
        predictions = predictions[..., None]
    p, t, dtype = _regions(name, predictions, targets, apply_sigmoid, False)
    return _overlap_losses(p, t, _spatial(p), smooth)[..., 0].astype(dtype)
