"""Distributions of noise: how to sample from them, and their log-densities."""

import math
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from gradtx.engine.base import Array


class Noise(Protocol):
    """A distribution of independent scalars, with the methods of `Gumbel`."""

    def sample(
        self, key: Array, sample_shape: tuple[int, ...] = ..., dtype: DTypeLike = ...
    ) -> Array:
        """Draws independent samples."""
        ...

    def log_prob(self, inputs: Array) -> Array:
        """Returns the log-density of each element."""
        ...


class Gumbel:
    """The standard Gumbel distribution, with density `exp(-z - exp(-z))`.

    The argmax of `x + z`, with independent `z`, is `i` with probability `softmax(x)[i]`.

    Example:
      >>> import jax
      >>> from gradtx.perturbations import Gumbel
      >>> print(f"{Gumbel().sample(jax.random.key(0), (100_000,)).mean():.2f}")  # Euler's constant
      0.58
    """

    def sample(
        self, key: Array, sample_shape: tuple[int, ...] = (), dtype: DTypeLike = float
    ) -> Array:
        """Draws independent samples.

        Args:
          key: a random key.
          sample_shape: the shape of the result. Default: a scalar.
          dtype: its dtype. Default: the default float.
        """
        return jax.random.gumbel(key, sample_shape, dtype)

    def log_prob(self, inputs: ArrayLike) -> Array:
        """Returns the log-density of each element: `-z - exp(-z)`.

        Args:
          inputs: an array.
        """
        inputs = jnp.asarray(inputs)
        return -inputs - jnp.exp(-inputs)


class Normal:
    """The standard normal distribution, with density `exp(-z^2 / 2) / sqrt(2 * pi)`.

    Example:
      >>> from gradtx.perturbations import Normal
      >>> print(f"{Normal().log_prob(0.0):.4f}")
      -0.9189
    """

    def sample(
        self, key: Array, sample_shape: tuple[int, ...] = (), dtype: DTypeLike = float
    ) -> Array:
        """Draws independent samples.

        Args:
          key: a random key.
          sample_shape: the shape of the result. Default: a scalar.
          dtype: its dtype. Default: the default float.
        """
        return jax.random.normal(key, sample_shape, dtype)

    def log_prob(self, inputs: ArrayLike) -> Array:
        """Returns the log-density of each element: `-z^2 / 2 - log(2 pi) / 2`.

        Args:
          inputs: an array.
        """
        inputs = jnp.asarray(inputs)
        return -0.5 * inputs * inputs - 0.5 * math.log(2 * math.pi)
