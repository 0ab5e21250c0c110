"""Second derivatives of a loss: products with the Hessian, its diagonal, and the Fisher diagonal.

Parameters are treated as one long vector, in the order of `jax.flatten_util.ravel_pytree`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Params, PyTree

Loss = Callable[[Params, PyTree, PyTree], Array]
"""`loss(params, inputs, targets)`, a scalar."""


def hvp(loss: Loss, v: ArrayLike, params: Params, inputs: PyTree, targets: PyTree) -> Array:
    r"""Multiplies the Hessian `H` of a loss with a vector `v`: `H @ v`.

    This derivative of the gradient in the direction of `v`, forward over reverse, costs a few
    evaluations of the loss and never forms `H`.

    Args:
      loss: `loss(params, inputs, targets)`, a scalar.
      v: a vector of as many elements as `params` has.
      params: a tree of arrays.
      inputs: the second argument of `loss`.
      targets: the third argument of `loss`.

    Returns:
      A vector like `v`.

    Raises:
      ValueError: the size of `v` is not that of `params`.

    Source: Pearlmutter, "Fast Exact Multiplication by the Hessian" (Neural Computation 6, 1994).

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import second_order
      >>> loss = lambda p, x, y: (p["a"] * p["b"] * x - y) ** 2
      >>> params = {"a": jnp.array(1.0), "b": jnp.array(2.0)}
      >>> print(second_order.hvp(loss, jnp.array([1.0, 0.0]), params, 1.0, 0.0))
      [8. 8.]
    """
    vector, unravel = ravel_pytree(params)
    v = jnp.asarray(v)
    if v.shape != vector.shape:
        raise ValueError(
            f"hvp: v must be a vector of the {vector.size} elements of params, got shape {v.shape}"
        )
    gradient = _gradient(loss, unravel, inputs, targets)
    return jax.jvp(gradient, (vector,), (v.astype(vector.dtype),))[1]


def hessian_diag(loss: Loss, params: Params, inputs: PyTree, targets: PyTree) -> Array:
    r"""Returns the diagonal of a loss's Hessian: `d^2 loss / d params[i]^2`.

    It takes one product `H e_i` for each of the `n` parameters, some at a time, so that neither `H`
    nor the identity is ever stored. The cost is `n` times that of a product (see `hvp`), so it is
    for small models.

    Args:
      loss: `loss(params, inputs, targets)`, a scalar.
      params: a tree of arrays.
      inputs: the second argument of `loss`.
      targets: the third argument of `loss`.

    Returns:
      A vector of as many elements as `params` has.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import second_order
      >>> loss = lambda p, x, y: (p["a"] * p["b"] * x - y) ** 2
      >>> params = {"a": jnp.array(1.0), "b": jnp.array(2.0)}
      >>> print(second_order.hessian_diag(loss, params, 1.0, 0.0))
      [8. 2.]
    """
    vector, unravel = ravel_pytree(params)
    gradient = _gradient(loss, unravel, inputs, targets)

    def second_derivative(i: Array) -> Array:
        basis = (jnp.arange(vector.size) == i).astype(vector.dtype)
        return jax.jvp(gradient, (vector,), (basis,))[1][i]

    return lax.map(second_derivative, jnp.arange(vector.size), batch_size=_AT_ONCE)


_AT_ONCE = 128  # products taken together: enough to keep an accelerator busy


def fisher_diag(
    negative_log_likelihood: Loss, params: Params, inputs: PyTree, targets: PyTree
) -> Array:
    r"""Returns the diagonal of the observed Fisher information: `(d nll / d params[i])^2`.

    This is the square of one gradient, so it treats `inputs` and `targets` as a single observation.
    For a batch of independent examples map it over them and take the mean,
    `jax.vmap(fisher_diag, (None, None, 0, 0))`: the square of the mean gradient is not the same.

    Args:
      negative_log_likelihood: `nll(params, inputs, targets)`, a scalar.
      params: a tree of arrays.
      inputs: given to `negative_log_likelihood`.
      targets: given to `negative_log_likelihood`.

    Returns:
      A vector of as many elements as `params` has.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import second_order
      >>> nll = lambda p, x, y: 0.5 * (p @ x - y) ** 2
      >>> print(second_order.fisher_diag(nll, jnp.ones(2), jnp.array([1.0, 2.0]), 0.0))
      [ 9. 36.]
    """
    vector, unravel = ravel_pytree(params)
    return jnp.square(_gradient(negative_log_likelihood, unravel, inputs, targets)(vector))


def _gradient(
    loss: Loss, unravel: Callable[[Array], Params], inputs: PyTree, targets: PyTree
) -> Callable[[Array], Array]:
    return jax.grad(lambda vector: loss(unravel(vector), inputs, targets))
