"""The Gauss-Newton-Bartlett estimator of the diagonal of a Hessian."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx._arguments import POSITIVE
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    Params,
    Scalar,
    Updates,
    init_empty_state,
)
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import abs_sq, times, widen


@functools.partial(piece, ranges={"batch_size": POSITIVE})
def gauss_newton_bartlett_estimator(batch_size: Scalar) -> GradientTransformation:
    """Estimates the diagonal of the loss's Gauss-Newton matrix, at the cost of one gradient.

    `batch_size * g^2`, where `g` is the gradient of the mean loss over a batch whose labels are
    drawn from the model's own predictions. The matrix is that part of the Hessian which is never
    negative. It is for losses that are negative logarithms of likelihoods, such as cross-entropy;
    with the true labels in place of drawn ones the expectation is another one.

    The loss is an argument of each call, `update(updates, state, params, obj_fn=loss)`: a function
    of the parameters that returns the mean loss on labels drawn in that step. For a classifier with
    logits `f(p, x)`, draw `y = jax.random.categorical(key, f(params, x))` before the call. In
    `sophia(..., hessian_diagonal_fn=gauss_newton_bartlett_estimator(n))` it is Sophia-G. Estimates
    are float32 or wider.

    Args:
      batch_size: the number of examples, or of tokens, in the mean.

    Raises:
      TypeError: `update` was called without `obj_fn`, or parameters are complex.
      ValueError: `update` was called without params.

    Source: Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
    Pre-training", arXiv:2305.14342, Algorithm 2.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, p = gradtx.gauss_newton_bartlett_estimator(2), jnp.array([1.0, 2.0])
      >>> def loss(p):
      ...     return jnp.sum(p**2)
      >>> print(tx.update(p, tx.init(p), p, obj_fn=loss)[0])
      [ 8. 32.]
    """

    def update(
        updates: Updates,
        state: EmptyState,
        params: Params,
        *,
        obj_fn: Callable[[Params], Array],
        **extra: Any,
    ) -> tuple[Updates, EmptyState]:
        del updates, extra
        slopes = jax.grad(obj_fn)(jax.tree.map(jnp.asarray, params))
        return jax.tree.map(lambda g: times(batch_size, abs_sq(widen(g))), slopes), state

    return coupled(
        EmptyState,
        init_empty_state,
        update,
        name="gauss_newton_bartlett_estimator",
        needs=("obj_fn",),
        params=True,
        real_only=True,
    )
