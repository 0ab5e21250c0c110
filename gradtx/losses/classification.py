"""Losses for one class out of several."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.base import Array


def _accumulator(dtype: Any) -> Any:
    """The dtype in which a sum of exponentials is safe: float32 for anything narrower."""
    return jnp.promote_types(dtype, jnp.float32)


def _floating(name: str, logits: Any) -> Array:
    logits = jnp.asarray(logits)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"{name}: logits must be floating-point numbers, not {logits.dtype}")
    return logits


def _mask(name: str, where: Any, logits: Array, axes: tuple[int, ...]) -> Array | None:
    """Brings a mask over entries, or over whole examples, to the rank of the logits."""
    if where is None:
        return None
    where = jnp.asarray(where)
    entries = where
    if where.ndim == logits.ndim - len(axes):
        entries = jnp.expand_dims(where, axes)
    try:
        if entries.ndim not in (0, logits.ndim):
            raise ValueError
        return jnp.broadcast_to(entries, jnp.broadcast_shapes(entries.shape, logits.shape))
    except ValueError:
        raise ValueError(
            f"{name}: where must have the shape of the logits, {logits.shape}, or that without "
            f"axis {axes}, got {where.shape}"
        ) from None


def _log_partition(z: Array, axis: Any, where: Any) -> tuple[Array, Array]:
    """Splits `log(sum(exp(z)))` into a shift and the rest, so that no exponential overflows.

    The shift is the largest logit, and is kept apart: `(z[y] - shift) - rest` loses no digits to
    cancellation, as `z[y] - (shift + rest)` would where all logits are large.
    """
    shift = jnp.max(z, axis=axis, keepdims=True, initial=-jnp.inf, where=where)
    # Nothing included, or everything at -inf: any finite shift will do, and -inf - -inf is nan.
    shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(shift), shift, 0))
    # Excluded entries are set aside before the exponential, or its overflow would reach gradients.
    kept = z - shift if where is None else jnp.where(where, z - shift, -jnp.inf)
    total = jnp.sum(jnp.exp(kept), axis=axis, keepdims=True)
    return shift, jnp.log(jnp.where(total > 0, total, 1))  # an empty sum has no slope either


def softmax_cross_entropy_with_integer_labels(
    logits: Any, labels: Any, axis: int | tuple[int, ...] = -1, where: Any = None
) -> Array:
    r"""Cross entropy between the softmax of logits and classes given by number.

    With the logits `z` of one example and its class `y`::

        loss = -log(softmax(z)[y]) = log(sum_k exp(z[k])) - z[y]

    computed in float32 at least, with the largest logit subtracted first, so that it neither
    overflows nor loses small differences between large logits. Its gradient is `softmax(z)` less
    one at `y`.

    Args:
      logits: unnormalized log-probabilities, floating-point, `[..., classes]`.
      labels: the classes' numbers, integers of the shape of `logits` without `axis`, or one that
        broadcasts to it. Negative numbers count from the last class; a number beyond the classes
        gives `nan`, as nothing can be raised under `jit`.
      axis: the axis of `logits` that holds the classes. If it is a tuple, the classes are the
        entries of these axes taken together, numbered row by row in the order of the tuple.
      where: which entries of `logits` take part in the softmax, a mask of their rank that
        broadcasts to them; or which examples count, a mask without `axis`; `None` for all. A class
        used as a label should take part. An example in which nothing does has loss 0.

    Returns:
      The loss of each example, of the shape of `logits` without `axis` and of their dtype.

    Raises:
      TypeError: if `logits` are not floating-point, or `labels` not integers.
      ValueError: if the shape of `labels` or of `where` does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
      >>> labels = jnp.array([0, 2])
      >>> losses.softmax_cross_entropy_with_integer_labels(logits, labels).tolist()
      [0.2395, 1.0986]
    """
    name = "softmax_cross_entropy_with_integer_labels"
    logits, labels = _floating(name, logits), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{name}: labels must be integers, not {labels.dtype}")
    axes = axis if isinstance(axis, tuple) else (axis,)
    last = tuple(range(-len(axes), 0))

    def classes_last(x: Array) -> Array:
        x = jnp.moveaxis(x, axes, last)
        return x.reshape(*x.shape[: x.ndim - len(axes)], -1)

    z = classes_last(logits).astype(_accumulator(logits.dtype))
    where = _mask(name, where, logits, axes)
    if where is not None:
        where = classes_last(where)
    try:
        labels = jnp.broadcast_to(labels, jnp.broadcast_shapes(labels.shape, z.shape[:-1]))
        z = jnp.broadcast_to(z, (*labels.shape, z.shape[-1]))
    except ValueError:
        raise ValueError(
            f"{name}: logits of shape {logits.shape} with classes along axis {axis} want labels of "
            f"shape {z.shape[:-1]}, got {labels.shape}"
        ) from None
    shift, rest = _log_partition(z, -1, where)
    labelled = jnp.take_along_axis(z, labels[..., None], axis=-1, mode="fill")
    loss = (rest - (labelled - shift))[..., 0]
    if where is not None:
        loss = jnp.where(jnp.any(where, axis=-1), loss, 0)
    return loss.astype(logits.dtype)


def softmax_cross_entropy(
    logits: Any, labels: Any, axis: int | tuple[int, ...] | None = -1, where: Any = None
) -> Array:
    r"""Cross entropy between the softmax of logits and a distribution over the classes.

    With the logits `z` of one example and the probabilities `p` of its classes::

        loss = -sum_k p[k] log(softmax(z)[k])

    where a class of probability 0 counts nothing, even at a logit of `-inf`. Computed in float32
    at least, with the largest logit subtracted first. Where the probabilities sum to 1, the
    gradient is `softmax(z) - p`.

    Args:
      logits: unnormalized log-probabilities, floating-point, `[..., classes]`.
      labels: the wanted probabilities, of a shape that broadcasts with that of `logits`. They
        should sum to 1 along `axis` (a one-hot vector does); this is not checked.
      axis: the axis, or axes, of `logits` that hold the classes; `None` for all axes.
      where: which entries of `logits` take part in the softmax and in the sum, a mask of their
        rank that broadcasts to them; or which examples count, a mask without `axis`; `None` for
        all. An example in which nothing takes part has loss 0.

    Returns:
      The loss of each example, of the broadcast shape without `axis` and of the dtype that
      `logits` and `labels` promote to.

    Raises:
      TypeError: if `logits` are not floating-point.
      ValueError: if the shapes of `logits`, `labels` and `where` do not broadcast.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
      >>> labels = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
      >>> losses.softmax_cross_entropy(logits, labels).tolist()
      [0.2395, 1.0986]
    """
    name = "softmax_cross_entropy"
    logits, labels = _floating(name, logits), jnp.asarray(labels)
    try:
        jnp.broadcast_shapes(logits.shape, labels.shape)
    except ValueError:
        raise ValueError(
            f"{name}: logits of shape {logits.shape} and labels of shape {labels.shape} do not "
            "broadcast"
        ) from None
    dtype = jnp.promote_types(logits.dtype, labels.dtype)
    z, p = logits.astype(_accumulator(dtype)), labels.astype(_accumulator(dtype))
    axes = tuple(range(z.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    where = _mask(name, where, logits, axes)
    shift, rest = _log_partition(z, axis, where)
    # 0 * -inf is nan, in the value and in the gradient: such logits are replaced before they meet.
    # Other logits stay, for the slope along a probability of 0 is not 0.
    counted = (p != 0) | (z > -jnp.inf)
    if where is not None:
        counted &= where
    log_q = jnp.where(counted, z, shift) - shift - rest
    return jnp.sum(jnp.where(counted, -p * log_q, 0), axis=axis).astype(dtype)
