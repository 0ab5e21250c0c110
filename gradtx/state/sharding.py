"""The shardings of a state, before it is allocated."""

from gradtx._arguments import checked
from gradtx._devices import explicitly, shardings_of
from gradtx.engine.base import Params, PyTree, TransformationLike


@checked
def state_sharding(tx: TransformationLike, params: Params) -> PyTree:
    """Returns the shardings of a state, without allocating anything.

    They are for `jax.jit(tx.init, out_shardings=...)`, and for restoring checkpoints. Slots are
    sharded as their parameters are, statistics as far as they share axes with them, and counts and
    other scalars are whole on each device. What `offload` keeps in the memory of the host has the
    memory kind `pinned_host`.

    Args:
      tx: the transformation.
      params: the parameters, or their shapes and dtypes (`jax.ShapeDtypeStruct`), with a
        `NamedSharding` each; others are whole on each device.

    Returns:
      A pytree like `tx.init(params)`, of `NamedSharding`s over the parameters' mesh.

    Raises:
      ValueError: no parameter has a `NamedSharding`, or they have different meshes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.sharding import NamedSharding, PartitionSpec
      >>> import gradtx
      >>> mesh = jax.make_mesh((1,), ("fsdp",))
      >>> sharding = NamedSharding(mesh, PartitionSpec("fsdp"))
      >>> w = jax.ShapeDtypeStruct((4, 2), jnp.float32, sharding=sharding)
      >>> print(*gradtx.state_sharding(gradtx.adam(0.1), w)[0].mu.spec)
      fsdp None
    """
    mesh, types = explicitly("state_sharding", params)
    return shardings_of(tx.init, types, mesh)
