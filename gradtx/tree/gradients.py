"""Functions that change the gradients of a pytree."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.tree.norms import rescale


def scale_gradient(inputs: PyTree, scale: Scalar) -> PyTree:
    """Returns its inputs unchanged, and multiplies their gradients by a number.

    Args:
      inputs: a pytree of arrays. Leaves without a gradient, such as integers, are not affected.
      scale: a number or a scalar array; negative to reverse gradients, 0 to stop them.

    Example:
      >>> import jax
      >>> import gradtx
      >>> print(jax.grad(lambda x: gradtx.scale_gradient(x, 0.5) ** 2)(3.0))
      3.0
    """

    def scaled(x: ArrayLike) -> ArrayLike:
        return _scaled(x, scale) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x

    return jax.tree.map(scaled, inputs)


@jax.custom_jvp
def _scaled(x: ArrayLike, scale: Scalar) -> ArrayLike:
    return x


@_scaled.defjvp
def _scaled_jvp(
    primals: tuple[ArrayLike, Scalar], tangents: tuple[ArrayLike, Scalar]
) -> tuple[ArrayLike, Array]:
    (x, scale), (x_dot, _) = primals, tangents
    return x, rescale(x_dot, scale)
