"""Cosine similarity and distance."""

import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar
from gradtx.losses.arguments import Axis, over_axes
from gradtx.tree.norms import safe_sqrt


def directed(x: Array, axis: Axis = -1, epsilon: Scalar = 0.0) -> Array:
    """Returns `x / max(norm(x), epsilon)` along an axis, and 0 with gradient 0 where that is 0 / 0.

    The vector is first divided by its largest element, so that no square overflows or vanishes.

    Args:
      x: a real array, in the dtype to compute in.
      axis: the axis or axes of a vector, or `None` for all.
      epsilon: the smallest denominator.
    """
    largest = stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0))
    largest = jnp.where(largest == 0, 1, largest)
    x = x / largest
    length = safe_sqrt(jnp.sum(x * x, axis=axis, keepdims=True))
    length = jnp.maximum(length, epsilon / largest)
    nothing = length == 0
    return jnp.where(nothing, 0, x) / jnp.where(nothing, 1, length)


def _cosine(
    name: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    epsilon: Scalar,
    axis: Axis,
    where: ArrayLike | None,
) -> tuple[Array, np.dtype]:
    if isinstance(epsilon, (int, float)) and epsilon < 0:
        raise ValueError(f"{name}: epsilon must not be negative, got {epsilon}")
    x, y, keep, dtype = over_axes(name, axis, where, predictions=predictions, targets=targets)
    x, y = (directed(jnp.where(keep, v, 0), axis, epsilon) for v in (x, y))
    return jnp.sum(x * y, axis=axis), dtype


def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: Scalar = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Array:
    r"""Cosine of the angle between two vectors.

    With the vectors `x` and `y`::

        similarity = <x, y> / (max(norm(x), epsilon) * max(norm(y), epsilon))

    in [-1, 1]. A vector of zeros has similarity 0 with every other, and gradients there are finite.

    Args:
      predictions: the vectors, floating-point, `[..., dim]`.
      targets: the vectors to compare with, floating-point, of a shape that broadcasts with that of
        `predictions`.
      epsilon: the smallest norm to divide by, not negative. Default: 0.
      axis: the axis or axes of a vector; `None` for all. Default: the last.
      where: which elements take part, a mask that broadcasts to the arrays. Default: `None`, all.

    Returns:
      The similarity of each pair, of the broadcast shape without `axis` and of the dtype that both
      arrays promote to.

    Raises:
      TypeError: if the arrays are not floating-point.
      ValueError: if shapes do not broadcast, there is no such axis, or `epsilon` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> x, y = jnp.array([[1.0, 1.0], [0.0, 2.0]]), jnp.array([[1.0, 0.0], [0.0, -3.0]])
      >>> losses.cosine_similarity(x, y).tolist()
      [0.7071, -1.0]
    """
    cosine, dtype = _cosine("cosine_similarity", predictions, targets, epsilon, axis, where)
    return cosine.astype(dtype)


def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: Scalar = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Array:
    r"""Cosine distance: 1 minus the cosine of the angle between two vectors.

    With the vectors `x` and `y`::

        distance = 1 - <x, y> / (max(norm(x), epsilon) * max(norm(y), epsilon))

    in [0, 2]. A vector of zeros has distance 1 from every other, and gradients there are finite.

    Args:
      predictions: the vectors, floating-point, `[..., dim]`.
      targets: the vectors to compare with, floating-point, of a shape that broadcasts with that of
        `predictions`.
      epsilon: the smallest norm to divide by, not negative. Default: 0.
      axis: the axis or axes of a vector; `None` for all. Default: the last.
      where: which elements take part, a mask that broadcasts to the arrays. Default: `None`, all.

    Returns:
      The distance of each pair, of the broadcast shape without `axis` and of the dtype that both
      arrays promote to.

    Raises:
      TypeError: if the arrays are not floating-point.
      ValueError: if shapes do not broadcast, there is no such axis, or `epsilon` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> x, y = jnp.array([[1.0, 1.0], [0.0, 2.0]]), jnp.array([[1.0, 0.0], [0.0, -3.0]])
      >>> losses.cosine_distance(x, y).tolist()
      [0.2929, 2.0]
    """
    cosine, dtype = _cosine("cosine_distance", predictions, targets, epsilon, axis, where)
    return (1 - cosine).astype(dtype)
