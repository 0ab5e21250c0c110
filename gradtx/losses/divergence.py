"""Kullback-Leibler divergences of predicted from true distributions."""

import warnings

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.losses.arguments import Axis, over_axes, weighted


def _terms(log_q: Array, p: Array) -> Array:
    """Returns `p log(p) - p log(q)`, and 0 where `p = 0`."""
    return p * jnp.log(jnp.where(p == 0, 1, p)) + weighted(p, -log_q)


def kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    r"""Kullback-Leibler divergence of predictions from targets.

    With the predicted log-probabilities `log_q` and the true probabilities `p`::

        loss = sum(p[k] * (log(p[k]) - log_q[k]), over k)

    where a class of probability 0 contributes nothing, even if predicted at `-inf`. "On information
    and sufficiency" (Kullback and Leibler, 1951).

    Args:
      log_predictions: the log-probabilities, floating-point, `[..., classes]`.
      targets: the probabilities, floating-point, of a shape that broadcasts with that of
        `log_predictions`.
      axis: the axis or axes to sum over; `None` for all. Default: the last.
      where: which entries take part, a mask that broadcasts to the arrays. Default: `None`, all.

    Returns:
      The divergence of each example, of the broadcast shape without `axis` and of the dtype that
      both arrays promote to.

    Raises:
      TypeError: if the arrays are not floating-point.
      ValueError: if shapes do not broadcast, or there is no such axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> q, p = jnp.array([0.25, 0.25, 0.5]), jnp.array([0.5, 0.5, 0.0])
      >>> losses.kl_divergence(jnp.log(q), p).item()
      0.6931
    """
    log_q, p, keep, dtype = over_axes(
        "kl_divergence", axis, where, log_predictions=log_predictions, targets=targets
    )
    terms = _terms(jnp.where(keep, log_q, 0), jnp.where(keep, p, 0))
    return jnp.sum(terms, axis=axis).astype(dtype)


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Array:
    r"""Kullback-Leibler divergence of predictions from targets given by their logarithms.

    With the predicted log-probabilities `log_q` and the true ones `log_p`::

        loss = sum(exp(log_p[k]) * (log_p[k] - log_q[k]), over k)

    where a class at `log_p = -inf` contributes nothing, even if predicted at `-inf`. "On
    information and sufficiency" (Kullback and Leibler, 1951).

    Args:
      log_predictions: the log-probabilities, floating-point, `[..., classes]`.
      log_targets: the true log-probabilities, floating-point, of a shape that broadcasts with that
        of `log_predictions`.
      axis: the axis or axes to sum over; `None` for all. Default: the last.
      where: which entries take part, a mask that broadcasts to the arrays. Default: `None`, all.

    Returns:
      The divergence of each example, of the broadcast shape without `axis` and of the dtype that
      both arrays promote to.

    Raises:
      TypeError: if the arrays are not floating-point.
      ValueError: if shapes do not broadcast, or there is no such axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> q, p = jnp.array([0.25, 0.25, 0.5]), jnp.array([0.5, 0.5, 0.0])
      >>> losses.kl_divergence_with_log_targets(jnp.log(q), jnp.log(p)).item()
      0.6931
    """
    log_q, log_p, keep, dtype = over_axes(
        "kl_divergence_with_log_targets",
        axis,
        where,
        log_predictions=log_predictions,
        log_targets=log_targets,
    )
    keep = keep & ~jnp.isneginf(log_p)
    log_q, log_p = jnp.where(keep, log_q, 0), jnp.where(keep, log_p, 0)
    terms = jnp.where(keep, jnp.exp(log_p) * (log_p - log_q), 0)
    return jnp.sum(terms, axis=axis).astype(dtype)


def generalized_kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    r"""Kullback-Leibler divergence for measures that need not sum to 1.

    With the predicted logarithms `log_q` and the true values `p`::

        loss = sum(p[k] * (log(p[k]) - log_q[k]) - p[k] + exp(log_q[k]), over k)

    No term is negative, and the loss is jointly convex in `p` and `q`; for distributions it
    equals `kl_divergence`. It is the Bregman divergence of the negative entropy: "Clustering with
    Bregman divergences" (Banerjee et al., JMLR 2005).

    Args:
      log_predictions: the logarithms, floating-point, `[..., classes]`.
      targets: the values, floating-point, of a shape that broadcasts with that of
        `log_predictions`.
      axis: the axis or axes to sum over; `None` for all. Default: the last.
      where: which entries take part, a mask that broadcasts to the arrays. Default: `None`, all.

    Returns:
      The divergence of each example, of the broadcast shape without `axis` and of the dtype that
      both arrays promote to.

    Raises:
      TypeError: if the arrays are not floating-point.
      ValueError: if shapes do not broadcast, or there is no such axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> q, p = jnp.array([0.5, 0.5, 0.5]), jnp.array([0.5, 0.5, 0.0])
      >>> losses.generalized_kl_divergence(jnp.log(q), p).item()
      0.5
    """
    log_q, p, keep, dtype = over_axes(
        "generalized_kl_divergence", axis, where, log_predictions=log_predictions, targets=targets
    )
    log_q, p = jnp.where(keep, log_q, 0), jnp.where(keep, p, 0)
    terms = jnp.where(keep, _terms(log_q, p) - p + jnp.exp(log_q), 0)
    return jnp.sum(terms, axis=axis).astype(dtype)


def convex_kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    """The former name of `generalized_kl_divergence`, with a `DeprecationWarning`.

    `loss = sum(p[k] * (log(p[k]) - log_q[k]) - p[k] + exp(log_q[k]), over k)`.

    Args:
      log_predictions: the logarithms `log_q`, floating-point, `[..., classes]`.
      targets: the values `p`, floating-point, of a shape that broadcasts with that of
        `log_predictions`.
      axis: the axis or axes to sum over; `None` for all. Default: the last.
      where: which entries take part, a mask that broadcasts to the arrays. Default: `None`, all.

    Returns:
      The divergence of each example.

    Raises:
      TypeError: if the arrays are not floating-point.
      ValueError: if shapes do not broadcast, or there is no such axis.

    Example:
      >>> import warnings
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> q, p = jnp.array([0.5, 0.5, 0.5]), jnp.array([0.5, 0.5, 0.0])
      >>> with warnings.catch_warnings():
      ...     warnings.simplefilter("ignore", DeprecationWarning)
      ...     losses.convex_kl_divergence(jnp.log(q), p).item()
      0.5
    """
    warnings.warn(
        "convex_kl_divergence: use generalized_kl_divergence, its present name",
        DeprecationWarning,
        stacklevel=2,
    )
    return generalized_kl_divergence(log_predictions, targets, axis, where)
