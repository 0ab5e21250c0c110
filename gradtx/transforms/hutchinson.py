"""Hutchinson's estimator of the diagonal of a Hessian."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx import tree
from gradtx._roles import RandomKey, declared
from gradtx.engine.base import Array, GradientTransformation, Params, Updates
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import widen
from gradtx.transforms.noise import as_key


@declared
class HutchinsonState(NamedTuple):
    """The state of `hutchinson_estimator_diag_hessian`.

    Attributes:
      key: the data (`jax.random.key_data`) of the random key for the next estimate.
    """

    key: RandomKey


@piece
def hutchinson_estimator_diag_hessian(
    random_seed: int | Array | None = None,
) -> GradientTransformation:
    """Estimates the diagonal of the loss's Hessian, at the cost of about two gradients.

    `u * (H u)`, where `u` holds independent random signs and `H` is the Hessian at the parameters.
    Its expectation is the diagonal. If `H` is diagonal, every estimate is exact. Normal numbers for
    `u`, as in the Sophia paper, give the same expectation and a larger variance.

    The loss is an argument of each call, `update(updates, state, params, obj_fn=loss)`: a twice
    differentiable function of the parameters, on the batch of that step. Only the structure and the
    shapes of the updates are used. Estimates are float32 or wider.

    Args:
      random_seed: a seed, or a random key of JAX. Default: `None`, the seed 0, with the same signs
        in every run.

    Raises:
      TypeError: `update` was called without `obj_fn`, or parameters are complex.
      ValueError: `update` was called without params, or `random_seed` holds several keys.

    Source: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian
    smoothing splines" (1990); Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for
    Language Model Pre-training", arXiv:2305.14342, Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, p = gradtx.hutchinson_estimator_diag_hessian(), jnp.array([1.0, 2.0])
      >>> def loss(p):
      ...     return jnp.sum(p**3)
      >>> print(tx.update(p, tx.init(p), p, obj_fn=loss)[0])
      [ 6. 12.]
    """
    name = "hutchinson_estimator_diag_hessian"
    # Sophia's default is made when gradtx is imported. No array may be made then, because JAX could
    # not be configured after it.
    key = None if random_seed is None else as_key(random_seed, None, name, "random_seed")
    kind: Any = None if key is None else jax.random.key_impl(key)

    def init(params: Params) -> HutchinsonState:
        del params
        # The key's data, as in optax, because NumPy can read it. A copy, because it may be donated.
        first = jax.random.key(0) if key is None else key
        return HutchinsonState(jnp.copy(jax.random.key_data(first)))

    def update(
        updates: Updates,
        state: HutchinsonState,
        params: Params,
        *,
        obj_fn: Callable[[Params], Array],
        **extra: Any,
    ) -> tuple[Updates, HutchinsonState]:
        del updates, extra
        now, later = jax.random.split(jax.random.wrap_key_data(state.key, impl=kind))
        params = jax.tree.map(jnp.asarray, params)
        signs = tree.random_like(now, params, jax.random.rademacher)
        # Forward over reverse: the derivative of the gradient in the direction of the signs.
        _, product = jax.jvp(jax.grad(obj_fn), (params,), (signs,))
        estimate = jax.tree.map(lambda u, hu: widen(u) * widen(hu), signs, product)
        return estimate, HutchinsonState(jax.random.key_data(later))

    return coupled(
        HutchinsonState, init, update, name=name, needs=("obj_fn",), params=True, real_only=True
    )
