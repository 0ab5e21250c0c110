"""Losses for one class out of several."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar
from gradtx.losses.arguments import (
    Axis,
    accumulator,
    axes_of,
    broadcast_shape,
    class_numbers,
    examples,
    floating,
    pick,
)


def _mask(name: str, where: ArrayLike | None, logits: Array, axes: tuple[int, ...]) -> Array | None:
    """Reshapes a mask over entries, or over whole examples, to the rank of the logits."""
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


def log_partition(z: Array, axis: Axis, where: ArrayLike | None) -> tuple[Array, Array]:
    """Splits `log(sum(exp(z)))` into a shift and the rest, so that no exponential overflows.

    The shift is the largest logit, and is kept apart: `(z[y] - shift) - rest` loses no digits to
    cancellation, as `z[y] - (shift + rest)` would where all logits are large.
    """
    shift = jnp.max(z, axis=axis, keepdims=True, initial=-jnp.inf, where=where)
    # If nothing takes part, or all is at -inf, the shift is 0, because -inf - -inf is nan.
    shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(shift), shift, 0))
    # Excluded entries are replaced before the exponential, or its overflow would reach gradients.
    kept = z - shift if where is None else jnp.where(where, z - shift, -jnp.inf)
    total = jnp.sum(jnp.exp(kept), axis=axis, keepdims=True)
    return shift, jnp.log(jnp.where(total > 0, total, 1))  # an empty sum has derivative 0


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] = -1,
    where: ArrayLike | None = None,
) -> Array:
    r"""Cross entropy between the softmax of logits and integer class labels.

    With the logits `z` of one example and its class `y`::

        loss = -log(softmax(z)[y])
        loss = log(sum(exp(z[k]), over k)) - z[y]

    computed in float32 at least, with the largest logit subtracted first, so that it neither
    overflows nor loses small differences between large logits. Its gradient is `softmax(z)`, minus
    1 at `y`.

    Args:
      logits: unnormalized log-probabilities, floating-point, `[..., classes]`.
      labels: the class indices, integers of the shape of `logits` without `axis`, or one that
        broadcasts with it. An index that is not a class, including a negative one, gives NaN, as no
        error can be raised under `jit`; leave such examples out with `where`.
      axis: the axis of `logits` that holds the classes. If it is a tuple, the classes are the
        entries of these axes taken together, numbered row by row in the order of the tuple.
        Default: the last.
      where: which entries of `logits` take part in the softmax, a mask of their rank that
        broadcasts to them; or which examples count, a mask without `axis`. The class of
        each label must take part; this is not checked. An example in which no class takes part has
        loss 0. Default: `None`, all.

    Returns:
      The loss of each example, of the shape that `labels` and `logits` without `axis` broadcast to,
      and of the dtype of `logits`.

    Raises:
      TypeError: if `logits` are not floating-point, or `labels` not integers.
      ValueError: if the shape of `labels` or of `where` does not fit, or there is no such axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
      >>> labels = jnp.array([0, 2])
      >>> losses.softmax_cross_entropy_with_integer_labels(logits, labels).tolist()
      [0.2395, 1.0986]
    """
    name = "softmax_cross_entropy_with_integer_labels"
    logits, labels = floating(name, "logits", logits), class_numbers(name, labels)
    axes_of(name, "logits", logits, axis)
    axes = axis if isinstance(axis, tuple) else (axis,)
    last = tuple(range(-len(axes), 0))

    def classes_last(x: Array) -> Array:
        x = jnp.moveaxis(x, axes, last)
        return x.reshape(*x.shape[: x.ndim - len(axes)], -1)

    z = classes_last(logits).astype(accumulator(logits.dtype))
    counted = _mask(name, where, logits, axes)
    if counted is not None:
        counted = classes_last(counted)
    told = f"logits of shape {logits.shape} with classes along axis {axis}"
    z, labels = examples(name, z, labels, told)
    shift, rest = log_partition(z, -1, counted)
    loss = (rest - (pick(z, labels) - shift))[..., 0]
    if counted is not None:
        loss = jnp.where(jnp.any(counted, axis=-1), loss, 0)
    return loss.astype(logits.dtype)


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Array:
    r"""Cross entropy between the softmax of logits and a distribution over the classes.

    With the logits `z` of one example and the probabilities `p` of its classes::

        loss = -sum(p[k] * log(softmax(z)[k]), over k)

    where a class of probability 0 contributes nothing, even at a logit of `-inf`. It is
    computed in float32 at least, with the largest logit subtracted first. Where the probabilities
    sum to 1, the gradient is `softmax(z) - p`.

    Args:
      logits: unnormalized log-probabilities, floating-point, `[..., classes]`.
      labels: the true probabilities, of a shape that broadcasts with that of `logits`. They should
        sum to 1 along `axis` (a one-hot vector does); this is not checked.
      axis: the axis, or axes, of `logits` that hold the classes; `None` for all axes. Default: the
        last.
      where: which entries of `logits` take part in the softmax and in the sum, a mask of their
        rank that broadcasts to them; or which examples count, a mask without `axis`. An example in
        which nothing takes part has loss 0. Default: `None`, all.

    Returns:
      The loss of each example, of the broadcast shape without `axis` and of the dtype that
      `logits` and `labels` promote to.

    Raises:
      TypeError: if `logits` are not floating-point.
      ValueError: if the shapes of `logits`, `labels` and `where` do not broadcast, or there is no
        such axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
      >>> labels = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
      >>> losses.softmax_cross_entropy(logits, labels).tolist()
      [0.2395, 1.0986]
    """
    p, log_q, counted, dtype = _two_distributions(
        "softmax_cross_entropy", logits, labels, axis, where
    )
    return jnp.sum(jnp.where(counted, -p * log_q, 0), axis=axis).astype(dtype)


def _two_distributions(
    name: str, logits: ArrayLike, labels: ArrayLike, axis: Axis, where: ArrayLike | None
) -> tuple[Array, Array, Array, np.dtype]:
    """Returns the labels, the logits' log-softmax, which terms count, and the result's dtype."""
    logits, labels = floating(name, "logits", logits), jnp.asarray(labels)
    broadcast_shape(name, logits=logits.shape, labels=labels.shape)
    dtype = jnp.promote_types(logits.dtype, labels.dtype)
    z, p = logits.astype(accumulator(dtype)), labels.astype(accumulator(dtype))
    within = axes_of(name, "logits", z, axis)
    axes = within if axis is None else axis if isinstance(axis, tuple) else (axis,)
    mask = _mask(name, where, logits, axes)
    shift, rest = log_partition(z, axis, mask)
    # 0 * -inf is nan, in the value and in the gradient: such logits are replaced before the
    # product. Other logits stay, because the derivative by a probability of 0 is not 0.
    counted = (p != 0) | (z > -jnp.inf)
    if mask is not None:
        counted &= mask
    return p, jnp.where(counted, z, shift) - shift - rest, counted, dtype


def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Cross entropy of a softmax and a distribution, for logits that may be `-inf`.

    `loss = -sum(p[k] * log(softmax(z)[k]), over k)`, which is `softmax_cross_entropy` along the
    last axis: that function and its gradient are already safe. This name exists for compatibility
    with optax.

    Args:
      logits: unnormalized log-probabilities `z`, floating-point, `[..., classes]`.
      labels: the true probabilities `p`, of a shape that broadcasts with that of `logits`.

    Returns:
      The loss of each example, of the broadcast shape without the last axis and of the dtype that
      `logits` and `labels` promote to.

    Raises:
      TypeError: if `logits` are not floating-point.
      ValueError: if the shapes do not broadcast.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits, labels = jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([0.5, 0.5, 0.0])
      >>> losses.safe_softmax_cross_entropy(logits, labels).item()
      0.6931
    """
    p, log_q, counted, dtype = _two_distributions(
        "safe_softmax_cross_entropy", logits, labels, -1, None
    )
    return jnp.sum(jnp.where(counted, -p * log_q, 0), axis=-1).astype(dtype)


def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: Scalar = 2.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Array:
    r"""Poly loss: cross entropy with another weight on the first term of its polynomial expansion.

    With the logits `z` of one example, the probabilities `p` of its classes and `q = softmax(z)`::

        loss = -sum(p[k] * log(q[k]), over k) + epsilon * sum(p[k] * (1 - q[k]), over k)

    where the second sum is the first term of the expansion `-log(q) = sum_j (1 - q)^j / j`.
    "PolyLoss: a polynomial expansion perspective of classification loss functions"
    (arXiv:2204.12511).

    Args:
      logits: unnormalized log-probabilities, floating-point, `[..., classes]`.
      labels: the true probabilities, of a shape that broadcasts with that of `logits`.
      epsilon: added to the first term's weight of 1; -1 removes the term. Default: 2.
      axis: the axis, or axes, of `logits` that hold the classes; `None` for all axes. Default: the
        last.
      where: which entries take part, as in `softmax_cross_entropy`. Default: `None`, all.

    Returns:
      The loss of each example, of the broadcast shape without `axis` and of the dtype that
      `logits` and `labels` promote to.

    Raises:
      TypeError: if `logits` are not floating-point.
      ValueError: if the shapes of `logits`, `labels` and `where` do not broadcast, or there is no
        such axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits, labels = jnp.array([2.0, 0.0, 0.0]), jnp.array([1.0, 0.0, 0.0])
      >>> losses.poly_loss_cross_entropy(logits, labels).item()
      0.6655
      >>> losses.poly_loss_cross_entropy(logits, labels, epsilon=0.0).item()
      0.2395
    """
    p, log_q, counted, dtype = _two_distributions(
        "poly_loss_cross_entropy", logits, labels, axis, where
    )
    terms = -p * (log_q + epsilon * jnp.expm1(log_q))
    return jnp.sum(jnp.where(counted, terms, 0), axis=axis).astype(dtype)
