"""What methods written by hand over whole trees keep beside each parameter.

Slots are float32 or wider, and the state keeps their dtypes whatever the updates come in.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, Params
from gradtx.engine.numerics import compute_dtype, widen


def zero_slots(params: Params, *, real: bool = False) -> Params:
    """Makes zeros beside the parameters.

    Args:
      params: a pytree of arrays.
      real: whether complex parameters get real zeros, as second moments are. Default: no.
    """

    def zeros(p: Any) -> Array:
        dtype = compute_dtype(jnp.result_type(p))
        return jnp.zeros(jnp.shape(p), jnp.finfo(dtype).dtype if real else dtype)

    return jax.tree.map(zeros, params)


def copied_slots(params: Params) -> Params:
    """Makes copies of the parameters, which stay when the parameters' buffers are given away.

    Args:
      params: a pytree of arrays.
    """
    return jax.tree.map(
        lambda p: jnp.array(p, compute_dtype(jnp.result_type(p)), copy=True), params
    )


def as_slots(leaves: Sequence[Any], slots: Sequence[Array]) -> list[Array]:
    """Casts leaves to the dtypes of the slots that belong to them.

    Args:
      leaves: arrays or Python numbers.
      slots: one for each leaf.
    """
    return [jnp.asarray(widen(x), s.dtype) for x, s in zip(leaves, slots, strict=True)]


def as_updates(results: Sequence[Array], updates: Sequence[Any]) -> list[Array]:
    """Casts results to the dtypes of the updates that they take the places of.

    Args:
      results: arrays.
      updates: one for each result.
    """
    return [r.astype(jnp.result_type(u)) for r, u in zip(results, updates, strict=True)]
