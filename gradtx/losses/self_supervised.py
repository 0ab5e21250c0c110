"""Losses that make embeddings of similar examples similar."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar
from gradtx.losses.arguments import (
    Axis,
    accumulator,
    axes_of,
    broadcast_shape,
    common_dtype,
    floating,
)
from gradtx.losses.classification import log_partition
from gradtx.losses.cosine import directed


def ntxent(embeddings: ArrayLike, labels: ArrayLike, temperature: Scalar = 0.07) -> Array:
    r"""Normalized, temperature-scaled cross entropy of similar pairs against dissimilar ones.

    With `s[i, j]` the cosine of the angle between the embeddings `i` and `j`, divided by the
    temperature, each pair `(i, j)` of the same label, `i != j`, has the loss::

        loss[i, j] = -log(exp(s[i, j]) / (exp(s[i, j]) + sum(exp(s[i, k]), over k)))

    where `k` runs over the examples of other labels. The result is the mean of these losses. With
    two views of each image, labelled by the image, this is the loss of "A simple framework for
    contrastive learning of visual representations" (arXiv:2002.05709); labels extend
    it to larger groups.

    Args:
      embeddings: floating-point, `[batch, features]`. A vector of zeros has cosine 0 with all
        others.
      labels: `[batch]`; examples of equal labels are similar.
      temperature: the divisor of cosines, positive: the smaller it is, the more the nearest
        dissimilar examples count. Default: 0.07.

    Returns:
      A scalar of the dtype of `embeddings`; 0 if no two labels are equal.

    Raises:
      TypeError: if `embeddings` are not floating-point.
      ValueError: if the shapes are not `[batch, features]` and `[batch]`, or `temperature` is a
        number that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> embeddings = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 1.0]])
      >>> losses.ntxent(embeddings, jnp.array([0, 0, 1, 1]), temperature=0.5).item()
      0.5360
    """
    name = "ntxent"
    embeddings, labels = floating(name, "embeddings", embeddings), jnp.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{name}: needs embeddings of shape [batch, features] and labels of shape [batch], got "
            f"{embeddings.shape} and {labels.shape}"
        )
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise ValueError(f"{name}: temperature must be positive, got {temperature}")
    unit = directed(embeddings.astype(accumulator(embeddings.dtype)))
    scores = unit @ unit.T / temperature
    alike = labels[:, None] == labels
    unlike = ~alike
    pairs = alike & ~jnp.eye(len(labels), dtype=bool)
    shift, rest = log_partition(scores, 1, unlike)  # log(sum_k exp(s[i, k])), in two parts
    rivalled = pairs & jnp.any(unlike, axis=1, keepdims=True)
    loss = jnp.where(rivalled, jax.nn.softplus(rest - (scores - shift)), 0)
    return (jnp.sum(loss) / jnp.maximum(jnp.sum(pairs), 1)).astype(embeddings.dtype)


def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: Axis = -1,
    norm_degree: Scalar = 2,
    margin: Scalar = 1.0,
    eps: Scalar = 1e-6,
) -> Array:
    r"""Triplet loss: an anchor should be nearer to its positive than to its negative, by a margin.

    With an anchor `a`, its positive `p` and negative `n`::

        d(x, y) = (sum(|x - y|**norm_degree) + eps)**(1 / norm_degree)
        loss    = max(0, d(a, p) - d(a, n) + margin)

    "Learning local feature descriptors with triplets and shallow convolutional neural networks"
    (Balntas et al., BMVC 2016), "FaceNet" (arXiv:1503.03832).

    Args:
      anchors: the embeddings, floating-point, `[..., features]`.
      positives: the embeddings that should be near the anchors, of a shape that broadcasts with
        that of `anchors`.
      negatives: the embeddings that should be far from the anchors, of a shape that broadcasts with
        that of `anchors`.
      axis: the axis or axes of an embedding; `None` for all. Default: the last.
      norm_degree: the degree of the norm, 1 or more; `math.inf` for the largest element, without
        `eps`. Default: 2.
      margin: by how much the positive should be nearer, in units of the distance. Default: 1.
      eps: added to the sum, so that the root has a finite derivative at 0. Default: 1e-6.

    Returns:
      The loss of each triplet, of the broadcast shape without `axis` and of the dtype that all
      three promote to.

    Raises:
      TypeError: if `anchors`, `positives` or `negatives` are not floating-point.
      ValueError: if the shapes do not broadcast, or `norm_degree` is a number below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> a, p, n = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 5.5]])
      >>> losses.triplet_margin_loss(a, p, n).tolist()
      [0.5]
    """
    name = "triplet_margin_loss"
    three = {"anchors": anchors, "positives": positives, "negatives": negatives}
    for role, x in three.items():
        floating(name, role, x)
    shape = broadcast_shape(name, **{role: jnp.shape(x) for role, x in three.items()})
    if isinstance(norm_degree, (int, float)) and not norm_degree >= 1:
        raise ValueError(f"{name}: norm_degree must be 1 or more, got {norm_degree}")
    dtype = common_dtype(*three.values())
    a, p, n = (jnp.asarray(x).astype(accumulator(dtype)) for x in three.values())
    axes_of(name, "triplets", jax.ShapeDtypeStruct(shape, dtype), axis)

    def distance(x: Array, y: Array) -> Array:
        size = jnp.abs(x - y)
        if isinstance(norm_degree, float) and math.isinf(norm_degree):
            return jnp.max(size, axis=axis)
        power = jnp.sum(size**norm_degree, axis=axis) + eps
        positive = power > 0  # with eps=0 it may be 0, where the root has no finite derivative
        return jnp.where(positive, jnp.where(positive, power, 1) ** (1 / norm_degree), 0)

    return jnp.maximum(0, distance(a, p) - distance(a, n) + margin).astype(dtype)
