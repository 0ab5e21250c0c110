"""Moments: exponential moving averages of powers of the gradients, and their bias correction.

The functions of pytrees are for transformations written over whole pytrees; leafwise rules use
`gradtx.numerics.ema`. Results are computed in float32 or wider and stored in the dtype of the
moments, so that a state keeps its dtypes. Where `updates` is `None`, the result is `None`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gradtx.engine.base import Array, PyTree, Scalar, Updates
from gradtx.engine.numerics import (
    Number,
    abs_sq,
    default_float,
    times,
    value_of,
    widen,
)
from gradtx.tree.mapping import map_leaves


def update_moment(updates: Updates, moments: PyTree, decay: Scalar, order: Scalar) -> PyTree:
    """Updates moving averages of powers: `decay * m + (1 - decay) * g**order`.

    Args:
      updates: the new values `g`, a pytree of arrays.
      moments: the averages `m` so far, a pytree of the same structure.
      decay: decay rate of the averages, in [0, 1].
      order: the power, usually 1 or 2. For `|g|**2` of complex leaves, see
        `update_moment_per_elem_norm`.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> print(tree.update_moment(jnp.array([2.0]), jnp.array([0.0]), 0.9, 2))
      [0.4]
    """

    def step(g: Array, m: Array) -> Array | np.ndarray:
        return decay * m + (1 - decay) * (g if order == 1 else g**order)

    return _each("update_moment", step, updates, moments)


def update_moment_per_elem_norm(
    updates: Updates, moments: PyTree, decay: Scalar, order: Scalar
) -> PyTree:
    """Updates moving averages of powers of magnitudes: `decay * m + (1 - decay) * |g|**order`.

    Args:
      updates: the new values `g`, a pytree of real or complex arrays.
      moments: the averages `m` so far, a pytree of real arrays of the same structure.
      decay: decay rate of the averages, in [0, 1].
      order: the power, usually 2.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> print(tree.update_moment_per_elem_norm(jnp.array([3 + 4j]), jnp.array([0.0]), 0.9, 2))
      [2.5]
    """

    def step(g: Array, m: Array) -> Array | np.ndarray:
        power = abs_sq(g) if order == 2 else jnp.abs(g) ** order
        return decay * m + (1 - decay) * power

    return _each("update_moment_per_elem_norm", step, updates, moments)


def update_infinity_moment(updates: Updates, moments: PyTree, decay: Scalar, eps: Scalar) -> PyTree:
    """Updates decaying maxima: `max(|g| + eps, decay * m)`.

    Args:
      updates: the new values `g`, a pytree of arrays.
      moments: the maxima `m` so far, a pytree of real arrays of the same structure.
      decay: decay rate of the maxima, in [0, 1].
      eps: added to every magnitude.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section
      7.1.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> print(tree.update_infinity_moment(jnp.array([-2.0]), jnp.array([4.0]), 0.75, 0.0))
      [3.]
    """

    def step(g: Array, m: Array) -> Array:
        return jnp.maximum(jnp.abs(g) + eps, decay * m)

    return _each("update_infinity_moment", step, updates, moments)


def bias_correction(moment: PyTree, decay: Scalar, count: Scalar) -> PyTree:
    """Corrects the bias of averages that started at zero: `moment / (1 - decay**count)`.

    If the divisor is 0, before the first step or with `decay = 1`, it is replaced by 1.

    Args:
      moment: a pytree of averages.
      decay: decay rate of the averages, in [0, 1].
      count: the number of values in the averages, an integer or a scalar array.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section 3.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> print(tree.bias_correction(jnp.array([0.2]), 0.9, 1))
      [2.]
    """
    weight = gathered_weight(decay, count)
    weight = jnp.where(weight == 0, 1, weight)

    def correct(m: ArrayLike) -> Array:
        return _stored(widen(m) / weight, m)

    return map_leaves("tree.bias_correction", correct, moment, names=("moment",))


def _each(
    name: str, step: Callable[[Array, Array], Array | np.ndarray], updates: Updates, moments: PyTree
) -> PyTree:
    def widened(g: ArrayLike, m: ArrayLike) -> Array:
        return _stored(step(widen(g), widen(m)), m)

    names = ("updates", "moments")
    return map_leaves(f"tree.{name}", widened, updates, moments, names=names, none_wins=True)


def _stored(new: Array | np.ndarray, old: ArrayLike) -> Array:
    """Casts to the dtype of a moment, unless that would round to integers or drop a part."""
    dtype = jnp.result_type(old)
    for kind in (jnp.inexact, jnp.complexfloating):
        if jnp.issubdtype(new.dtype, kind) and not jnp.issubdtype(dtype, kind):
            return jnp.asarray(new)
    return jnp.asarray(new, dtype)


def gathered_weight(decay: Scalar, steps: Scalar) -> Array:
    """Returns `1 - decay**steps`: the sum of the weights in an average that started at zero.

    Dividing the average by it is bias correction. It is computed as `-expm1(steps * log(decay))`,
    because the plain form is inaccurate while `decay**steps` is near 1: for `decay=0.999` in
    float32, the relative error is 1e-5 at the first step.

    Args:
      decay: decay rate of the average, in [0, 1].
      steps: the number of values in the average, a scalar, at least 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import gathered_weight
      >>> print(gathered_weight(0.5, jnp.array([1, 2, 3])))
      [0.5   0.75  0.875]
    """
    steps = jnp.asarray(steps, default_float())
    if isinstance(decay, Number):
        positive = decay.value > 0
        weight = one_minus_power(decay.log, steps)
        return jnp.where(positive, weight, 1)
    if not isinstance(decay, jax.Array):
        decay = float(decay)
        return one_minus_power(math.log(decay), steps) if decay > 0 else jnp.ones_like(steps)
    positive = decay > 0
    weight = one_minus_power(jnp.log(jnp.where(positive, decay, 1)), steps)
    return jnp.where(positive, weight, 1)


def step_number(count: ArrayLike) -> Array:
    """Returns the number of the next step, 1 for the first, as a floating scalar.

    `count + 1`, which would overflow in the dtype of an integer count at its largest value.

    Args:
      count: the number of steps taken, a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import step_number
      >>> print(step_number(jnp.int32(0)), step_number(jnp.int32(9)))
      1.0 10.0
    """
    return lax.convert_element_type(count, default_float()) + 1


def next_count(count: Array, period: Scalar) -> Array:
    """Returns the count after a step of a method that does something at every `period`-th step.

    `count + 1`; at the dtype's largest value a whole number of periods less, so that
    `count % period` continues, where a count that stays would never be due again.

    Args:
      count: the number of steps taken, an integer scalar.
      period: the number of steps from one such step to the next, at least 1.
    """
    back = lax.convert_element_type(value_of(period), count.dtype)
    return lax.add(count, jnp.where(count < jnp.iinfo(count.dtype).max, 1, 1 - back))


def one_minus_power(log_base: Scalar, exponent: Array) -> Array:
    """Returns `1 - base**exponent` from the logarithm of the base, with full accuracy.

    Args:
      log_base: the logarithm, a number or a scalar array.
      exponent: a floating scalar.

    Example:
      >>> import math
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import one_minus_power
      >>> print(one_minus_power(math.log(0.5), jnp.array([1.0, 2.0])))
      [0.5  0.75]
    """
    return lax.neg(lax.expm1(times(log_base, exponent)))
