"""Losses for regression: functions of the difference of prediction and target."""

import math

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar
from gradtx.losses.arguments import accumulator, elementwise, floating


def _errors(
    name: str, predictions: ArrayLike, targets: ArrayLike | None, same_shape: bool
) -> tuple[Array, np.dtype]:
    """Returns `predictions - targets` in the dtype to compute in, and the dtype of the result."""
    floating(name, "predictions", predictions)
    if targets is None:
        predictions = jnp.asarray(predictions)
        return predictions.astype(accumulator(predictions.dtype)), predictions.dtype
    if same_shape and jnp.shape(predictions) != jnp.shape(targets):
        raise ValueError(
            f"{name}: predictions of shape {jnp.shape(predictions)} need targets of the same "
            f"shape, got {jnp.shape(targets)}"
        )
    x, y, dtype = elementwise(name, predictions=predictions, targets=targets)
    return x - y, dtype


def squared_error(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """Squared error: `(predictions - targets)^2`, element by element.

    Its mean over examples is the mean squared error. Its gradient is twice the error; see
    `l2_loss` for the form without that factor.

    Args:
      predictions: floating-point numbers of any shape.
      targets: numbers of the same shape. Default: `None`, zeros.

    Returns:
      The loss of each element, of the dtype that both promote to.

    Raises:
      TypeError: if `predictions` are not floating-point.
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> losses.squared_error(jnp.array([1.0, 3.0]), jnp.array([0.5, 1.0])).tolist()
      [0.25, 4.0]
    """
    error, dtype = _errors("squared_error", predictions, targets, same_shape=True)
    return (error * error).astype(dtype)


def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """Half of the squared error: `(predictions - targets)^2 / 2`, element by element.

    Its gradient is the error itself. "Pattern Recognition and Machine Learning" (Bishop, 2006).

    Args:
      predictions: floating-point numbers of any shape.
      targets: numbers of the same shape. Default: `None`, zeros.

    Returns:
      The loss of each element, of the dtype that both promote to.

    Raises:
      TypeError: if `predictions` are not floating-point.
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> losses.l2_loss(jnp.array([1.0, 3.0]), jnp.array([0.5, 1.0])).tolist()
      [0.125, 2.0]
    """
    error, dtype = _errors("l2_loss", predictions, targets, same_shape=True)
    return (error * error / 2).astype(dtype)


def huber_loss(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, delta: Scalar = 1.0
) -> Array:
    r"""Huber loss: squared near 0, linear beyond.

    With the error `e = predictions - targets`::

        |e| <= delta: loss = e**2 / 2
        otherwise:    loss = delta * (|e| - delta / 2)

    whose gradient is the error, clipped to `[-delta, delta]`. "Robust estimation of a location
    parameter" (Huber, 1964).

    Args:
      predictions: floating-point numbers of any shape.
      targets: numbers of that shape, or one that broadcasts with it. Default: `None`, zeros.
      delta: the absolute error above which the loss is linear; not negative. Default: 1.

    Returns:
      The loss of each element, of the dtype that both promote to.

    Raises:
      TypeError: if `predictions` are not floating-point.
      ValueError: if the shapes do not broadcast, or if their ranks differ and neither is the shape
        that they broadcast to; or if `delta` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> losses.huber_loss(jnp.array([0.5, -3.0])).tolist()
      [0.125, 2.5]
    """
    if isinstance(delta, (int, float)) and delta < 0:
        raise ValueError(f"huber_loss: delta must not be negative, got {delta}")
    error, dtype = _errors("huber_loss", predictions, targets, same_shape=False)
    clipped = jnp.clip(error, -delta, delta)
    return (clipped * (error - clipped / 2)).astype(dtype)


def log_cosh(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    r"""Logarithm of the hyperbolic cosine of the error.

    With the error `e = predictions - targets`::

        loss = log(cosh(e))

    which is nearly `e^2 / 2` for small errors and `|e| - log(2)` for large ones, smooth between,
    with the gradient `tanh(e)`. It does not overflow at large errors, nor lose digits at small
    ones.

    Args:
      predictions: floating-point numbers of any shape.
      targets: numbers of that shape, or one that broadcasts with it. Default: `None`, zeros.

    Returns:
      The loss of each element, of the dtype that both promote to.

    Raises:
      TypeError: if `predictions` are not floating-point.
      ValueError: if the shapes do not broadcast, or if their ranks differ and neither is the shape
        that they broadcast to.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> losses.log_cosh(jnp.array([1e-3, 1.0, -500.0])).tolist()
      [5e-07, 0.4338, 499.3069]
    """
    error, dtype = _errors("log_cosh", predictions, targets, same_shape=False)
    small = jnp.abs(error) < 1
    sinh = jnp.sinh(jnp.where(small, error, 0))
    size = jnp.abs(error)
    far = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    return jnp.where(small, jnp.log1p(sinh * sinh) / 2, far).astype(dtype)
