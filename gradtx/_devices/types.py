"""Shardings over explicit axes of a mesh, as the types of arrays have them."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax import Array, lax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

Axes = tuple[tuple[str, ...], ...]
"""For each axis of an array, the mesh axes over which it is divided, the major one first."""


def explicit_mesh(arrays: Iterable[Any]) -> AbstractMesh | None:
    """Returns the mesh of the first array that has one with explicit axes, or `None`.

    Args:
      arrays: arrays, traced or not, or their types.
    """
    for array in arrays:
        mesh = getattr(getattr(_typeof(array), "sharding", None), "mesh", None)
        if mesh is not None and explicit_axes(mesh):
            return mesh.abstract_mesh
    return None


def explicit_axes(mesh: Any) -> tuple[str, ...]:
    """Returns the names of the explicit axes of a mesh, in their order.

    Args:
      mesh: a mesh.
    """
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def axes_of(array: Any) -> Axes:
    """Returns the mesh axes over which each axis of an array is divided.

    Args:
      array: an array with explicit axes in its type, or its type.
    """
    spec = _typeof(array).sharding.spec
    entries = [() if x is None else (x,) if isinstance(x, str) else tuple(x) for x in spec]
    return (*entries, *[()] * (array.ndim - len(entries)))


def partition_spec(axes: Sequence[Sequence[str]]) -> PartitionSpec:
    """Returns the `PartitionSpec` of the axes.

    Args:
      axes: for each axis of an array, the mesh axes over which it is divided.
    """
    return PartitionSpec(*(tuple(a) if len(a) > 1 else a[0] if a else None for a in axes))


def placed_as(x: Array, like: Any) -> Array:
    """Returns an array unchanged, in a form that the compiler shards like another one.

    Over automatic axes of a mesh, the compiler decides how arrays are sharded. It gives an array
    that does not depend on others, such as zeros, whole to every device. So the result depends on
    `like`, though not on its values.

    Args:
      x: an array of the shape of `like`.
      like: an array; nothing is done if it is not traced, or has no automatic axes.
    """
    if not isinstance(like, Tracer) or x.shape != like.shape or not x.ndim:
        return x
    kinds = jax.typeof(like).sharding.mesh.axis_types
    if kinds and AxisType.Auto not in kinds:
        return x
    # With equal operands, the selection would be replaced by one of them before it is sharded.
    return lax.select(lax.eq(like, like), x, lax.optimization_barrier(x))


def _typeof(array: Any) -> Any:
    return array if isinstance(array, jax.ShapeDtypeStruct) else jax.typeof(array)
