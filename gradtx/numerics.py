"""Arithmetic on one array that rules share.

Python numbers stay Python numbers for as long as they are alone: `1 - b` is taken in double before
it meets a float32 array. The functions that nearly every rule calls use `jax.lax` rather than
`jax.numpy`, which traces the same operation several times faster.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.base import Array


def like(scalar: Any, x: Array) -> Any:
    """Casts a scalar to the dtype of `x`, which `lax` does not do by itself.

    Args:
      scalar: a number, or a scalar array.
      x: a real or complex array.
    """
    if isinstance(scalar, jax.Array):
        return lax.convert_element_type(scalar, x.dtype)
    return np.asarray(scalar, x.dtype)


def times(scalar: Any, x: Array) -> Array:
    """Gives `scalar * x`, in the dtype of `x`; integers are promoted as usual.

    Args:
      scalar: a Python number, or a scalar array.
      x: an array.
    """
    return lax.mul(x, like(scalar, x)) if _inexact(x) else scalar * x


def plus(x: Array, scalar: Any) -> Array:
    """Gives `x + scalar`, in the dtype of `x`; the Python number 0 costs nothing.

    Args:
      x: an array.
      scalar: a Python number, or a scalar array.
    """
    if isinstance(scalar, (int, float)) and scalar == 0:
        return x
    return lax.add(x, like(scalar, x)) if _inexact(x) else x + scalar


def over(x: Array, scalar: Any) -> Array:
    """Gives `x / scalar`, in the dtype of `x`; integers are promoted as usual.

    Args:
      x: an array.
      scalar: a Python number, or a scalar array.
    """
    return lax.div(x, like(scalar, x)) if _inexact(x) else x / scalar


def _inexact(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


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
        return lax.real(x) * lax.real(x) + lax.imag(x) * lax.imag(x)
    return lax.mul(x, x)


def real_full_like(x: Array, value: Any) -> Array:
    """Makes an array of the shape of `x` and its real dtype, such as a second moment has.

    Args:
      x: a real or complex array; its values are not read.
      value: what to fill the array with.
    """
    return jnp.full_like(x, value, dtype=jnp.finfo(x.dtype).dtype if _inexact(x) else None)


def ema(x: Array, average: Array, decay: Any) -> Array:
    """Moves an exponential average towards `x`: `decay * average + (1 - decay) * x`.

    Args:
      x: the new value.
      average: the average so far, of the shape and dtype of `x`.
      decay: how much of the average stays, in [0, 1]; `1 - decay` is taken before it meets `x`.
    """
    return lax.add(times(decay, average), times(1 - decay, x))


def gathered_weight(decay: Any, steps: Any) -> Array:
    """Gives `1 - decay**steps`: the sum of the weights in an average that started at zero.

    Dividing the average by it corrects its bias. Written as `-expm1(steps * log(decay))`, because
    the plain form loses most of its digits while `decay**steps` is near 1: at `decay=0.999` in
    float32, a relative error of 1e-5 at the first step.

    Args:
      decay: the decay of the average, in [0, 1].
      steps: how many values the average holds; a scalar, at least 1.
    """
    steps = jnp.asarray(steps, default_float())
    if not isinstance(decay, jax.Array):
        decay = float(decay)
        return one_minus_power(math.log(decay), steps) if decay > 0 else jnp.ones_like(steps)
    positive = decay > 0
    weight = one_minus_power(jnp.log(jnp.where(positive, decay, 1)), steps)
    return jnp.where(positive, weight, 1)


def one_minus_power(log_base: Any, exponent: Array) -> Array:
    """Gives `1 - base**exponent` from the base's logarithm, to the last digits.

    Args:
      log_base: the logarithm, a number or a scalar array.
      exponent: a floating scalar.
    """
    return lax.neg(lax.expm1(times(log_base, exponent)))


def root(x: Array) -> Array:
    """Gives the square root as a denominator: never quite 0, and with a finite gradient.

    `sqrt(x + tiny)`, where `tiny` is the dtype's smallest normal number: what is above 1e-30 in
    float32 does not notice, and a quotient `0 / 0` becomes 0, its gradient finite. An addition
    costs no more than the `eps_root` that it takes the place of.

    Args:
      x: a real array, not negative.
    """
    return lax.sqrt(plus(x, jnp.finfo(x.dtype).tiny))


def ratio(numerator: Array, square: Array, eps: Any) -> Array:
    """Gives `numerator / (sqrt(square) + eps)`, and 0 where both are 0.

    Args:
      numerator: a real or complex array.
      square: a real array, not negative, of the same shape.
      eps: a Python number, or a scalar array.
    """
    denominator = plus(root(square), eps)
    dtype = jnp.result_type(numerator, denominator)
    return lax.div(
        lax.convert_element_type(numerator, dtype), lax.convert_element_type(denominator, dtype)
    )


def safe_sqrt(x: Array) -> Array:
    """Gives the exact square root, with gradient 0 where `x` is 0 instead of infinity.

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
    top = np.asarray(info(count.dtype).max, count.dtype)
    return lax.add(count, lax.convert_element_type(lax.lt(count, top), count.dtype))


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
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return lax.convert_element_type(x, compute_dtype(x.dtype))


def rescale(x: Any, factor: Any) -> Array:
    """Gives `factor * x`, multiplied in float32 or wider and rounded once to the dtype of `x`.

    Args:
      x: an array.
      factor: a scalar array or a number.
    """
    return jnp.asarray(widen(x) * factor, jnp.result_type(x))


def default_float() -> Any:
    """Gives the dtype of a Python float in JAX: float32, or float64 in x64 mode."""
    return jnp.result_type(float)
