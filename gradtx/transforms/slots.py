"""Slots of methods that are written by hand over whole pytrees.

Slots are float32 or wider, and keep their dtypes whatever the dtypes of the updates are.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._devices import placed_as
from gradtx.engine.base import Array, Params
from gradtx.engine.numerics import compute_dtype, widen


def zero_slots(params: Params, *, real: bool = False) -> Params:
    """Returns slots of zeros, one for each parameter.

    Args:
      params: a pytree of arrays.
      real: whether the slots of complex parameters are real, as for second moments. Default: False.
    """

    def zeros(p: ArrayLike) -> Array:
        dtype = compute_dtype(jnp.result_type(p))
        return placed_as(jnp.zeros_like(p, jnp.finfo(dtype).dtype if real else dtype), p)

    return jax.tree.map(zeros, params)


def copied_slots(params: Params) -> Params:
    """Returns copies of the parameters, so that the parameters' buffers can be donated.

    Args:
      params: a pytree of arrays.
    """
    return jax.tree.map(
        lambda p: jnp.array(p, compute_dtype(jnp.result_type(p)), copy=True), params
    )


def as_slots(leaves: Sequence[ArrayLike], slots: Sequence[Array]) -> list[Array]:
    """Casts leaves to the dtypes of the slots that belong to them.

    Args:
      leaves: arrays or Python numbers.
      slots: one for each leaf.
    """
    return [jnp.asarray(widen(x), s.dtype) for x, s in zip(leaves, slots, strict=True)]


def as_updates(results: Sequence[Array], updates: Sequence[ArrayLike]) -> list[Array]:
    """Casts results to the dtypes of the updates that they replace.

    Args:
      results: arrays.
      updates: one for each result.
    """
    return [r.astype(jnp.result_type(u)) for r, u in zip(results, updates, strict=True)]
