"""Arithmetic on one array that rules share.

Everything here works on arrays and on Python numbers, and keeps Python numbers in double for as
long as they are alone: `1 - b` is exact before it meets a float32 array.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.base import Array


def abs_sq(x: Array) -> Array:
    """Gives `|x|^2` as a real array, without the square root that `abs` would take.

    Args:
      x: any real or complex array.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import abs_sq
      >>> print(abs_sq(jnp.array([3 + 4j, 2])))
      [25.  4.]
    """
    if jnp.iscomplexobj(x):
        return jnp.square(jnp.real(x)) + jnp.square(jnp.imag(x))
    return jnp.square(x)


def ema(x: Array, average: Array, decay: Any) -> Array:
    """Moves an exponential average towards `x`: `decay * average + (1 - decay) * x`.

    Args:
      x: the new value.
      average: the average so far, of `x`'s shape.
      decay: how much of the average stays, in [0, 1]; `1 - decay` is taken before it meets `x`.
    """
    return decay * average + (1 - decay) * x


def bias_correction_factor(decay: Any, steps: Any, dtype: Any) -> Array:
    """Gives `1 - decay**steps`, what an average that started at zero has summed its weights to.

    Written as `-expm1(steps * log(decay))`, because the plain form loses most of its digits while
    `decay**steps` is near 1: at `decay=0.999` in float32, 1e-5 of relative error at the first step.

    Args:
      decay: the decay of the average, in [0, 1].
      steps: how many values the average holds; a scalar, at least 1.
      dtype: the real floating dtype of the result.
    """
    if isinstance(decay, (int, float)):
        if decay <= 0:
            return jnp.ones((), dtype)
        log_decay = math.log(decay)
    else:
        log_decay = jnp.log(decay)
    return -jnp.expm1(jnp.asarray(steps, dtype) * jnp.asarray(log_decay, dtype))


def debias(average: Array, decay: Any, steps: Any) -> Array:
    """Corrects an exponential average that started at zero: `average / (1 - decay**steps)`.

    Args:
      average: the average, real or complex.
      decay: its decay, in [0, 1].
      steps: how many values it holds; a scalar, at least 1.
    """
    return average / bias_correction_factor(decay, steps, jnp.real(average).dtype)


def safe_sqrt(x: Array) -> Array:
    """Gives the square root, with gradient 0 where `x` is 0 instead of infinity.

    Args:
      x: a real array, not negative.
    """
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def safe_increment(count: Array) -> Array:
    """Adds one to a counter, and stays at the dtype's largest value rather than overflow.

    Args:
      count: an integer or floating scalar array.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> int(gradtx.safe_increment(jnp.int32(2**31 - 1)))
      2147483647
    """
    count = jnp.asarray(count)
    info = jnp.iinfo if jnp.issubdtype(count.dtype, jnp.integer) else jnp.finfo
    top = jnp.asarray(info(count.dtype).max, count.dtype)
    return jnp.where(count < top, count + jnp.ones((), count.dtype), top)


def compute_dtype(dtype: Any) -> Any:
    """Gives the dtype in which arithmetic on `dtype` is done: float32 for what is narrower.

    Args:
      dtype: any dtype.
    """
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        return jnp.dtype(jnp.float32)
    return jnp.dtype(dtype)


def widen(x: Any) -> Array:
    """Casts an array to the dtype in which arithmetic on it is done, without a weak type.

    Args:
      x: an array or a Python number.
    """
    x = jnp.asarray(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return jax.lax.convert_element_type(x, compute_dtype(x.dtype))


def default_float() -> Any:
    """Gives the dtype of a Python float in JAX: float32, or float64 in x64 mode."""
    return jnp.result_type(float)
