"""States in the memory of the host."""

from typing import Any

import jax
from jax import memory

from gradtx.engine.base import (
    GradientTransformation,
    OptState,
    Params,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.leafwise import piece
from gradtx.engine.pipeline import wrapped

HOST, DEVICE = memory.Space.Host, memory.Space.Device


@piece
def offload(inner: TransformationLike) -> GradientTransformation:
    """Keeps the state of a transformation in the memory of the host.

    Under `jit`, each array of the state is copied to the device for the step, and the new one back;
    where the backend can, it copies some arrays while it computes with others. Scalars, such as
    counts, stay on the device. The numbers are those of the transformation.

    The arrays have the memory kind `pinned_host`, and the sharding that they would have on the
    devices, so that `offload(zero(tx, "data"))` and `offload(shard(tx, params))` are possible.

    Donate the state only to a function with `out_shardings`, for which `state_sharding` has the
    memory kinds. Without them JAX chooses by shape and dtype which result takes over the memory of
    a donated array, and may choose one of the device.

    Args:
      inner: the transformation.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.offload(gradtx.adam(0.1))
      >>> w = jnp.ones(2)
      >>> state = tx.init(w)
      >>> print(state[0].mu.sharding.memory_kind)
      pinned_host
      >>> updates, state = jax.jit(tx.update)(w, state, w)
      >>> print(updates, state[0].mu.sharding.memory_kind)
      [-0.1 -0.1] pinned_host
    """
    tx = with_extra_args_support(inner)

    def init(params: Params) -> OptState:
        return _moved(tx.init(params), HOST)

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        updates, state = tx.update(updates, _moved(state, DEVICE), params, **extra)
        return updates, _moved(state, HOST)

    return wrapped(init, update, inner, name="offload")


def _moved(state: OptState, space: Any) -> OptState:
    return jax.tree.map(lambda x: jax.device_put(x, space) if x.ndim else x, state)
