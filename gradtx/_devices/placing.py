"""Types of arrays that are divided as others are."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, Sharding, reshard
from jax.typing import DTypeLike

from gradtx._devices.types import (
    Layout,
    Typed,
    axes_of,
    explicit_axes,
    explicit_mesh,
    partition_spec,
)


def placed_like(
    leaf: Typed, layout: Layout, slot: Layout, dtype: DTypeLike
) -> jax.ShapeDtypeStruct:
    """Returns the type of a slot of a leaf's matrices, which is divided as they are.

    It is divided by the mesh axes that divide the leaf's matrices among themselves. By the other
    explicit axes it is divided along the matrices too, if each device then has equally many, and
    otherwise along its longest axes.

    Args:
      leaf: the leaf, or its type.
      layout: the leaf's layout.
      slot: the slot's layout.
      dtype: the slot's dtype.
    """
    mesh = explicit_mesh([leaf])
    if mesh is None:
        return jax.ShapeDtypeStruct(slot.shape, dtype)
    of_leaf = axes_of(leaf)
    axes = [list(of_leaf[a]) for a in layout.order[: layout.counted]]
    axes += [[] for _ in slot.shape[layout.counted :]]
    local = [
        n // math.prod(mesh.shape[name] for name in names)
        for n, names in zip(slot.shape, axes, strict=True)
    ]
    taken = {name for names in axes for name in names}
    rest = [name for name in explicit_axes(mesh) if name not in taken]
    if layout.counted and local[0] % math.prod(mesh.shape[name] for name in rest) == 0:
        axes[0] += rest
        rest = []
    for name in rest:
        longest = max(range(slot.counted, len(local)), key=local.__getitem__, default=0)
        if local[longest] % mesh.shape[name] == 0:
            axes[longest].append(name)
            local[longest] //= mesh.shape[name]
    sharding = NamedSharding(mesh, partition_spec(axes))
    return jax.ShapeDtypeStruct(slot.shape, dtype, sharding=sharding)


def typed_like(leaf: Typed, dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    """Returns the type of a slot of the shape of a leaf, which is divided as the leaf is.

    Args:
      leaf: the leaf, or its type.
      dtype: the slot's dtype.
    """
    mesh = explicit_mesh([leaf])
    found = None if mesh is None else NamedSharding(mesh, partition_spec(axes_of(leaf)))
    return jax.ShapeDtypeStruct(jnp.shape(leaf), dtype, sharding=found)


def whole(x: jax.Array) -> jax.Array:
    """Returns an array whole on each device of its mesh, if that has explicit axes.

    Args:
      x: the array.
    """
    mesh = explicit_mesh([x])
    return x if mesh is None else reshard(x, NamedSharding(mesh, partition_spec([()] * x.ndim)))


def placed(x: jax.Array, sharding: Sharding | None) -> jax.Array:
    """Returns an array in a sharding over explicit axes of a mesh.

    Args:
      x: the array.
      sharding: the sharding of its type; `None` if it has none.
    """
    return x if sharding is None else reshard(x, sharding)


def undivided(x: jax.Array, axis: int | None = None, size: int = 1) -> jax.Array:
    """Returns an array that is not divided within blocks, over explicit axes of a mesh.

    Args:
      x: the array.
      axis: the axis along which there are blocks. Default: `None`, no axis may be divided.
      size: the number of entries of a block along the axis. Default: 1.
    """
    mesh = explicit_mesh([x])
    if mesh is None:
        return x
    axes = list(axes_of(x))
    for i, names in enumerate(axes):
        parts = math.prod(mesh.shape[name] for name in names)
        if axis is None or (i == axis and x.shape[i] % (parts * size)):
            axes[i] = ()
    return placed(x, NamedSharding(mesh, partition_spec(axes)))


def placed_with(x: jax.Array, like: jax.Array) -> jax.Array:
    """Returns an array divided over explicit axes of a mesh as another one of as many axes is.

    Args:
      x: the array. Axes whose length the devices do not divide are left whole, and so is the array
        if it has another number of axes.
      like: the other array.
    """
    mesh = explicit_mesh([like])
    if mesh is None or x.ndim != jnp.ndim(like):
        return x
    sizes = [math.prod(mesh.shape[name] for name in names) for names in axes_of(like)]
    lengths = zip(axes_of(like), x.shape, sizes, strict=True)
    axes = [names if n % size == 0 else () for names, n, size in lengths]
    return placed(x, NamedSharding(mesh, partition_spec(axes)))
