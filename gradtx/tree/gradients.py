"""What differentiation sees of a tree."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.numerics import rescale


def scale_gradient(inputs: Any, scale: Any) -> Any:
    """Gives its inputs unchanged, and multiplies the gradients that flow through by a number.

    Args:
      inputs: a pytree of arrays. Leaves that have no gradient, such as integers, pass by.
      scale: a number or a scalar array; negative to reverse gradients, 0 to stop them.

    Example:
      >>> import jax
      >>> import gradtx
      >>> print(jax.grad(lambda x: gradtx.scale_gradient(x, 0.5) ** 2)(3.0))
      3.0
    """

    def scaled(x: Any) -> Any:
        return _scaled(x, scale) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x

    return jax.tree.map(scaled, inputs)


@jax.custom_jvp
def _scaled(x: Any, scale: Any) -> Any:
    return x


@_scaled.defjvp
def _scaled_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    (x, scale), (x_dot, _) = primals, tangents
    return x, rescale(x_dot, scale)
