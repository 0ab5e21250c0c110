"""Preparation of the arguments of losses: dtypes, shapes, masks, labels."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx._arguments import MisfitError, axes_within
from gradtx.engine.base import Array
from gradtx.engine.numerics import default_float

Axis = int | tuple[int, ...] | None
"""One axis, several axes, or all."""


def accumulator(dtype: DTypeLike) -> np.dtype:
    """The dtype in which a loss is computed: float32 for anything narrower."""
    return jnp.promote_types(dtype, jnp.float32)


def floating(name: str, role: str, x: ArrayLike) -> Array:
    """Returns `x` as an array, or raises if it is not floating-point."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: {role} must be floating-point numbers, not {x.dtype}")
    return x


def common_dtype(*arrays: ArrayLike) -> np.dtype:
    """The dtype of a loss of arrays: their promoted dtype, or the default float for integers."""
    dtype = jnp.result_type(*arrays)
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else default_float()


def elementwise(name: str, **two: ArrayLike) -> tuple[Array, Array, np.dtype]:
    """Broadcasts two arrays that are combined elementwise, in the dtype to compute in.

    Shapes broadcast, but not `(n, 1)` with `(n,)`: arrays of different rank must broadcast to the
    shape of one of them. Otherwise every prediction would silently be compared with every target.

    Args:
      name: the name of the calling function, for errors.
      **two: the two arrays, by their names in errors.

    Returns:
      The arrays, and the dtype of the result.
    """
    dtype = common_dtype(*two.values())
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"{name}: {' and '.join(two)} must be real, not {dtype}")
    shape = elementwise_shape(name, **{role: jnp.shape(x) for role, x in two.items()})
    a, b = (
        jnp.broadcast_to(jnp.asarray(x).astype(accumulator(dtype)), shape) for x in two.values()
    )
    return a, b, dtype


def elementwise_shape(name: str, **two: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that two shapes broadcast to, if `elementwise` allows it."""
    (role_a, a), (role_b, b) = two.items()
    shape = broadcast_shape(name, **two)
    if len(a) != len(b) and shape not in (a, b):
        raise ValueError(
            f"{name}: {role_a} of shape {a} and {role_b} of shape {b} would give a loss of shape "
            f"{shape}; give both the same number of axes"
        )
    return shape


def broadcast_shape(name: str, **shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that several shapes broadcast to, or an error that names them."""
    try:
        return jnp.broadcast_shapes(*shapes.values())
    except ValueError:
        told = " and ".join(f"{role} of shape {shape}" for role, shape in shapes.items())
        raise ValueError(f"{name}: {told} do not broadcast") from None


def over_axes(
    name: str, axis: Axis, where: ArrayLike | None, **two: ArrayLike
) -> tuple[Array, Array, Array | Literal[True], np.dtype]:
    """Broadcasts two arrays whose loss is a sum over axes, and a mask with them.

    Args:
      name: the name of the calling function, for errors.
      axis: the axis or axes that are summed over, or `None` for all.
      where: a mask that broadcasts to the arrays, or `None`.
      **two: the two arrays, by their names in errors.

    Returns:
      The arrays, in the dtype to compute in; the mask, `True` for none; and the dtype of the
      result.
    """
    for role, x in two.items():
        floating(name, role, x)
    dtype = common_dtype(*two.values())
    shapes = {role: jnp.shape(x) for role, x in two.items()}
    shape = broadcast_shape(name, **shapes)
    if where is not None:
        where = jnp.asarray(where)
        if broadcast_shape(name, **shapes, where=where.shape) != shape:
            raise ValueError(f"{name}: where of shape {where.shape} does not broadcast to {shape}")
    a, b = (
        jnp.broadcast_to(jnp.asarray(x).astype(accumulator(dtype)), shape) for x in two.values()
    )
    axes_of(name, " and ".join(two), a, axis)
    return a, b, True if where is None else where.astype(bool), dtype


def axes_of(name: str, role: str, x: Array | jax.ShapeDtypeStruct, axis: Axis) -> tuple[int, ...]:
    """Returns axes of an array, counted from the front, or raises if it has no such axis."""
    try:
        return axes_within(axis, x.ndim)
    except MisfitError as e:
        raise ValueError(f"{name}: the array of {role} {e}") from None


def class_numbers(name: str, labels: ArrayLike) -> Array:
    """Returns labels as an array, or raises if they are not integers."""
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{name}: labels must be integers, not {labels.dtype}")
    return labels


def examples(name: str, scores: Array, labels: Array, told: str) -> tuple[Array, Array]:
    """Broadcasts scores `[..., classes]` and their labels to the same examples.

    Args:
      name: the name of the calling function, for errors.
      scores: the scores.
      labels: the class indices, of the shape of `scores` without the classes, or one that
        broadcasts with it (as in `elementwise`).
      told: the description of the scores in an error.
    """
    try:
        shape = elementwise_shape(name, scores=scores.shape[:-1], labels=labels.shape)
    except ValueError:
        raise ValueError(
            f"{name}: {told} need labels of shape {scores.shape[:-1]}, got {labels.shape}"
        ) from None
    return jnp.broadcast_to(scores, (*shape, scores.shape[-1])), jnp.broadcast_to(labels, shape)


def pick(scores: Array, labels: Array) -> Array:
    """Returns `scores[..., labels]` with an axis of length 1 last, NaN where there is no class.

    A negative label is not a class: it is not counted from the end.

    Args:
      scores: scores `[..., classes]`.
      labels: integers `[...]`.
    """
    return jnp.take_along_axis(
        scores, from_the_front(labels[..., None], scores.shape[-1]), axis=-1, mode="fill"
    )


def from_the_front(labels: Array, classes: int) -> Array:
    """Replaces negative labels by `classes`, so that they are not counted from the end.

    Args:
      labels: integers.
      classes: the number of classes.
    """
    return jnp.where(labels < 0, classes, labels)


def weighted(weight: Array, cost: Array) -> Array:
    """Returns `weight * cost`, and 0 where the weight is 0 and the cost infinite.

    The derivative by the weight is the cost, also at a weight of 0, if the cost is finite.

    Args:
      weight: an array.
      cost: an array of the same shape and dtype.
    """
    counted = (weight != 0) | jnp.isfinite(cost)
    # 0 * inf is nan, in the value and in both derivatives: neither factor may reach the product.
    return jnp.where(counted, weight, 0) * jnp.where(counted, cost, 0)
