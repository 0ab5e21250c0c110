"""Exponential averages of powers of the gradients, over trees.

These are for transformations that are written over whole trees; a leafwise rule has
`gradtx.numerics.ema`. Arithmetic is done in float32 or wider and stored in the dtype of the
moments, so that a state keeps its dtypes. Where `updates` is `None`, so is the result.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gradtx.engine.numerics import abs_sq, gathered_weight, widen
from gradtx.tree.mapping import map_leaves


def update_moment(updates: Any, moments: Any, decay: Any, order: Any) -> Any:
    """Moves averages of powers: `decay * m + (1 - decay) * g**order`.

    Args:
      updates: the new values `g`, a pytree of arrays.
      moments: the averages so far `m`, a pytree of the same structure.
      decay: how much of the average stays, in [0, 1].
      order: the power, usually 1 or 2. For `|g|**2` of complex leaves see
        `update_moment_per_elem_norm`.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> print(tree.update_moment(jnp.array([2.0]), jnp.array([0.0]), 0.9, 2))
      [0.4]
    """

    def step(g: Any, m: Any) -> Any:
        return decay * m + (1 - decay) * (g if order == 1 else g**order)

    return _each("update_moment", step, updates, moments)


def update_moment_per_elem_norm(updates: Any, moments: Any, decay: Any, order: Any) -> Any:
    """Moves averages of powers of magnitudes: `decay * m + (1 - decay) * |g|**order`.

    Args:
      updates: the new values `g`, a pytree of real or complex arrays.
      moments: the averages so far `m`, a pytree of real arrays of the same structure.
      decay: how much of the average stays, in [0, 1].
      order: the power, usually 2.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> print(tree.update_moment_per_elem_norm(jnp.array([3 + 4j]), jnp.array([0.0]), 0.9, 2))
      [2.5]
    """

    def step(g: Any, m: Any) -> Any:
        power = abs_sq(g) if order == 2 else jnp.abs(g) ** order
        return decay * m + (1 - decay) * power

    return _each("update_moment_per_elem_norm", step, updates, moments)


def update_infinity_moment(updates: Any, moments: Any, decay: Any, eps: Any) -> Any:
    """Moves decaying maxima: `max(|g| + eps, decay * m)`.

    Args:
      updates: the new values `g`, a pytree of arrays.
      moments: the maxima so far `m`, a pytree of real arrays of the same structure.
      decay: how much of the maximum stays, in [0, 1].
      eps: what every magnitude is raised by.

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

    def step(g: Any, m: Any) -> Any:
        return jnp.maximum(jnp.abs(g) + eps, decay * m)

    return _each("update_infinity_moment", step, updates, moments)


def bias_correction(moment: Any, decay: Any, count: Any) -> Any:
    """Corrects averages that started at zero: `moment / (1 - decay**count)`.

    An average without weight, before the first step or with `decay = 1`, is given back as it is.

    Args:
      moment: a pytree of averages.
      decay: how much of the average stays at each step, in [0, 1].
      count: how many values the averages hold, an integer or a scalar array.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section 3.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> print(tree.bias_correction(jnp.array([0.2]), 0.9, 1))
      [2.]
    """
    weight = gathered_weight(decay, count)
    weight = jnp.where(weight == 0, 1, weight)

    def correct(m: Any) -> Any:
        return _stored(widen(m) / weight, m)

    return map_leaves("tree.bias_correction", correct, moment, names=("moment",))


def _each(name: str, step: Callable[[Any, Any], Any], updates: Any, moments: Any) -> Any:
    def widened(g: Any, m: Any) -> Any:
        return _stored(step(widen(g), widen(m)), m)

    names = ("updates", "moments")
    return map_leaves(f"tree.{name}", widened, updates, moments, names=names, none_wins=True)


def _stored(new: Any, old: Any) -> Any:
    """Casts to the dtype of a moment, unless that would round to integers or lose a part."""
    dtype = jnp.result_type(old)
    for kind in (jnp.inexact, jnp.complexfloating):
        if jnp.issubdtype(new.dtype, kind) and not jnp.issubdtype(dtype, kind):
            return new
    return jnp.asarray(new, dtype)
