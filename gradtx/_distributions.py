"""Probability distributions whose samples are differentiable in the parameters."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array


class MultiNormalDiagFromLogScale:
    """A normal distribution of independent elements, given by means and logarithms of scales.

    With `z` standard normal, a sample is `loc + exp(log_scale) * z`, so that gradients flow from
    samples to both parameters.

    Args:
      loc: the means, an array.
      log_scale: the logarithms of the standard deviations, an array that broadcasts against `loc`.
    """

    def __init__(self, loc: ArrayLike, log_scale: ArrayLike):
        self._mean, self._log_scale = jnp.asarray(loc), jnp.asarray(log_scale)
        self._param_shape = jnp.broadcast_shapes(self._mean.shape, self._log_scale.shape)

    @property
    def params(self) -> list[Array]:
        """The means and the logarithms of the standard deviations, in the shapes given."""
        return [self._mean, self._log_scale]

    @property
    def log_scale(self) -> Array:
        """The logarithms of the standard deviations."""
        return self._log_scale

    def sample(self, shape: Sequence[int], key: Array) -> Array:
        """Draws samples.

        Args:
          shape: the leading axes of the result, in front of those of the parameters.
          key: a random key.
        """
        dtype = jnp.result_type(self._mean, self._log_scale, float)
        z = jax.random.normal(key, (*shape, *self._param_shape), dtype)
        return self._mean + jnp.exp(self._log_scale) * z

    def log_prob(self, x: ArrayLike) -> Array:
        """Returns the logarithm of the density, summed over the parameters' axes.

        Args:
          x: the points, an array whose last axes broadcast against the parameters' axes.
        """
        z = (x - self._mean) * jnp.exp(-self._log_scale)
        terms = -0.5 * jnp.square(z) - self._log_scale - 0.5 * math.log(2 * math.pi)
        return jnp.sum(terms, axis=tuple(range(-len(self._param_shape), 0)))


def multi_normal(loc: ArrayLike, log_scale: ArrayLike) -> MultiNormalDiagFromLogScale:
    """Returns a normal distribution of independent elements.

    Args:
      loc: the means, an array.
      log_scale: the logarithms of the standard deviations, an array that broadcasts against `loc`.

    Raises:
      ValueError: the shapes do not broadcast.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> normal = gradtx.multi_normal(jnp.zeros(2), jnp.zeros(2))
      >>> normal.sample((3,), jax.random.key(0)).shape
      (3, 2)
      >>> print(normal.log_prob(jnp.zeros(2)))
      -1.837877
    """
    return MultiNormalDiagFromLogScale(loc, log_scale)
