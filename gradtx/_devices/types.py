"""Shardings over explicit axes of a mesh, as the types of arrays have them."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax, memory
from jax.core import Tracer
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    explicit_axes as explicit_axes_of,
    use_abstract_mesh,
)
from jax.typing import ArrayLike

PyTree: TypeAlias = Any

Typed: TypeAlias = ArrayLike | jax.ShapeDtypeStruct
"""An array, or its type."""

Column: TypeAlias = Any
"""A `Column` of `gradtx.matrices.stacks`, which is above this package."""

Layout: TypeAlias = Any
"""A `Layout` of `gradtx.matrices.layout`."""

Axes = tuple[tuple[str, ...], ...]
"""For each axis of an array, the mesh axes over which it is divided, the major one first."""


def explicit_mesh(arrays: Iterable[Typed]) -> AbstractMesh | None:
    """Returns the mesh of the first array that has one with explicit axes, or `None`.

    Args:
      arrays: arrays, traced or not, or their types.
    """
    for array in arrays:
        mesh = getattr(getattr(_typeof(array), "sharding", None), "mesh", None)
        if mesh is not None and explicit_axes(mesh):
            return mesh.abstract_mesh
    return None


def explicit_axes(mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """Returns the names of the explicit axes of a mesh, in their order.

    Args:
      mesh: a mesh.
    """
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def axes_of(array: Typed) -> Axes:
    """Returns the mesh axes over which each axis of an array is divided.

    Args:
      array: an array, or its type; without explicit axes in it, the array is whole.
    """
    known = _typeof(array)
    found = () if known.sharding is None else known.sharding.spec.partitions
    entries = [() if x is None else (x,) if isinstance(x, str) else tuple(x) for x in found]
    return (*entries, *[()] * (len(known.shape) - len(entries)))


def partition_spec(axes: Sequence[Sequence[str]]) -> PartitionSpec:
    """Returns the `PartitionSpec` of the axes.

    Args:
      axes: for each axis of an array, the mesh axes over which it is divided.
    """
    return PartitionSpec(*(tuple(a) if len(a) > 1 else a[0] if a else None for a in axes))


def over_automatic_axes(x: Typed) -> bool:
    """Returns whether an array is traced, and the compiler may divide it over several devices.

    Args:
      x: an array.
    """
    if not isinstance(x, Tracer):
        return False
    kinds = jax.typeof(x).sharding.mesh.axis_types
    return AxisType.Auto in kinds if kinds else jax.device_count() > 1


def placed_as(x: Array, like: Typed) -> Array:
    """Returns an array unchanged, in a form that the compiler shards like another one.

    Over automatic axes of a mesh, the compiler decides how arrays are sharded. It gives an array
    that does not depend on others, such as zeros, whole to every device. So the result depends on
    `like`, though not on its values.

    Args:
      x: an array of the shape of `like`.
      like: an array; nothing is done if it is not traced, has no automatic axes, or cannot be on
        several devices.
    """
    if not isinstance(like, Tracer) or x.shape != like.shape or not x.ndim:
        return x
    if not over_automatic_axes(like):
        return x
    # With equal operands, the selection would be replaced by one of them before it is sharded.
    return lax.select(lax.eq(like, like), x, lax.optimization_barrier(x))


def _typeof(array: Typed) -> Any:
    return array if isinstance(array, jax.ShapeDtypeStruct) else jax.typeof(array)


def explicitly(name: str, params: PyTree) -> tuple[Mesh, PyTree]:
    """Returns the mesh of parameters, and their types with all axes of the mesh explicit.

    Args:
      name: the name of the caller, for errors.
      params: a pytree of arrays, or of their shapes and dtypes, with a `NamedSharding` each; others
        are whole on each device.

    Raises:
      ValueError: no parameter has a `NamedSharding`, or they have different meshes.
    """
    mesh = named_mesh(name, params)
    if not isinstance(mesh, Mesh):
        raise ValueError(
            f"{name}: no parameter has a NamedSharding; place them with jax.device_put, or give "
            "jax.ShapeDtypeStruct(shape, dtype, sharding=...)"
        )
    return mesh, explicit_types(mesh, params)


def named_mesh(name: str, params: PyTree) -> Mesh | AbstractMesh | None:
    """Returns the mesh of the `NamedSharding`s of parameters, or `None` if there are none.

    Args:
      name: the name of the caller, for errors.
      params: a pytree of arrays, or of their shapes and dtypes.

    Raises:
      ValueError: the parameters have different meshes.
    """
    held = map(_named, jax.tree.leaves(params))
    meshes = {x.mesh for x in held if x is not None and not x.mesh.empty}
    if len(meshes) > 1:
        raise ValueError(f"{name}: the parameters are on {len(meshes)} different meshes")
    return next(iter(meshes), None)


def explicit_types(mesh: Mesh | AbstractMesh, params: PyTree) -> PyTree:
    """Returns the types of parameters, with all axes of their mesh explicit.

    Args:
      mesh: the mesh.
      params: a pytree of arrays, or of their shapes and dtypes, with a `NamedSharding` each; others
        are whole on each device.
    """
    kinds = (AxisType.Explicit,) * len(mesh.axis_names)
    abstract = AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=kinds)

    def type_of(x: Typed) -> jax.ShapeDtypeStruct:
        held = _named(x)
        sharding = NamedSharding(abstract, PartitionSpec() if held is None else held.spec)
        return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding)

    return jax.tree.map(type_of, params)


def _named(x: Typed) -> NamedSharding | None:
    found = getattr(x, "sharding", None)
    return found if isinstance(found, NamedSharding) else None


def shardings_of(
    function: Callable[..., PyTree], types: PyTree, mesh: Mesh | AbstractMesh
) -> PyTree:
    """Returns the sharding of each array that a function returns, also in the host's memory.

    Args:
      function: a function of a pytree.
      types: the pytree's types, over explicit axes of a mesh; see `explicitly`.
      mesh: the mesh of the shardings.
    """
    found: list[PyTree] = []

    def sharding_of(x: Array) -> NamedSharding:
        known = jax.typeof(x)
        kind = "pinned_host" if known.memory_space == memory.Space.Host else None
        return NamedSharding(mesh, known.sharding.spec, memory_kind=kind)

    def noted(types: PyTree) -> PyTree:
        results = function(types)
        found.append(jax.tree.map(sharding_of, results))
        return results

    explicit = explicit_mesh(jax.tree.leaves(types))
    with contextlib.nullcontext() if explicit is None else use_abstract_mesh(explicit):
        jax.eval_shape(noted, types)
    return found[0]


def over_explicit_axes(
    mesh: Mesh, function: Callable[..., PyTree], *specs: PyTree
) -> Callable[..., PyTree]:
    """Returns a function that runs another one with shardings in the arrays' types.

    It is for use inside `jit`, with arrays over automatic axes, which its results are too.

    Args:
      mesh: the mesh of the arrays.
      function: a function of pytrees.
      *specs: a pytree of `PartitionSpec`s for each argument.
    """
    specs_of_results: list[PyTree] = []

    def noted(*args: PyTree) -> PyTree:
        results = function(*args)
        specs_of_results[:] = [jax.tree.map(lambda x: jax.typeof(x).sharding.spec, results)]
        return results

    def call(*args: PyTree) -> PyTree:
        args = _constrained(args, specs, mesh)
        with use_abstract_mesh(mesh.abstract_mesh):
            results = explicit_axes_of(noted, in_sharding=specs)(*args)
        return _constrained(results, specs_of_results[0], mesh)

    return call


def _constrained(tree: PyTree, specs: PyTree, mesh: Mesh) -> PyTree:
    return jax.tree.map(
        lambda x, spec: lax.with_sharding_constraint(x, NamedSharding(mesh, spec)), tree, specs
    )
