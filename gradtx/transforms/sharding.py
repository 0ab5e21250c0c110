"""Optimizers whose state and work are divided over the devices of a mesh."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, auto_axes, reshard

from gradtx._arguments import checked
from gradtx._devices import (
    axes_of,
    explicit_axes,
    explicit_mesh,
    explicitly,
    over_explicit_axes,
    partition_spec,
    shardings_of,
)
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.paths import align, is_none
from gradtx.engine.pipeline import FORM, wrapped


@checked
def shard(inner: TransformationLike, params: Params) -> GradientTransformation:
    """Runs a transformation with the shardings of the parameters in the arrays' types.

    Over automatic axes of a mesh, the compiler guesses how arrays inside a step are sharded. Inside
    `shard` they are sharded as the parameters are: `init` gives every part of the state its
    sharding, also under `jit`, `update` keeps it, and methods on matrices, such as Muon, divide
    whole matrices over the devices. The numbers are those of the transformation. Over explicit axes
    (`jax.make_mesh(..., axis_types=(AxisType.Explicit, ...))`) none of this is needed.

    Args:
      inner: the transformation.
      params: the parameters, or their shapes and dtypes (`jax.ShapeDtypeStruct`), with a
        `NamedSharding` each. Only their shardings are used. Leaves without one are whole on each
        device.

    Raises:
      ValueError: no parameter has a `NamedSharding`, or they have different meshes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.sharding import NamedSharding, PartitionSpec
      >>> import gradtx
      >>> mesh = jax.make_mesh((1,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> w = jax.device_put(jnp.eye(2), NamedSharding(mesh, PartitionSpec("fsdp")))
      >>> tx = gradtx.shard(gradtx.muon(0.1), w)
      >>> updates, state = jax.jit(tx.update)(w, jax.jit(tx.init)(w), w)
      >>> print(updates.sharding.is_equivalent_to(w.sharding, w.ndim))
      True
    """
    tx = with_extra_args_support(inner)
    mesh, types = explicitly("shard", params)
    specs = jax.tree.map(lambda x: x.sharding.spec, types)
    treedef = jax.tree.structure(types, is_leaf=is_none)

    @functools.partial(jax.jit, static_argnums=0)
    def first(form: Any, params: Params) -> OptState:
        return over_explicit_axes(mesh, tx.init, specs)(params)

    def init(params: Params) -> OptState:
        align(treedef, params, "params of init", types, "params of shard")
        if explicit_mesh(jax.tree.leaves(params)) is not None:
            return tx.init(params)
        return first(FORM.get(), params)  # which `init` reads while it is traced

    @compiled_when_concrete
    def step(
        updates: Updates, state: OptState, params: Params | None, **extra: Any
    ) -> tuple[Updates, OptState]:
        wanted = shardings_of(tx.init, types, mesh)
        align(jax.tree.structure(wanted), state, "state", wanted, "init(params)")
        of_state = jax.tree.map(lambda x: x.spec, wanted)
        functions = {n: _over_automatic_axes(x) for n, x in extra.items() if callable(x)}
        arrays = {n: x for n, x in extra.items() if n not in functions}
        of_arrays = {n: _specs_like(x, params, specs) for n, x in arrays.items()}

        def run(*args: Any) -> tuple[Updates, OptState]:
            return tx.update(*args[:-1], **args[-1], **functions)

        seen = None if params is None else specs
        run = over_explicit_axes(mesh, run, specs, of_state, seen, of_arrays)
        return run(updates, state, params, arrays)

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        align(treedef, updates, "updates", types, "params of shard")
        if explicit_mesh(jax.tree.leaves(updates)) is not None:
            return tx.update(updates, state, params, **extra)
        return step(updates, state, params, **extra)

    return wrapped(init, update, inner, name="shard")


def _specs_like(x: PyTree, params: Params | None, specs: PyTree) -> PyTree:
    """Returns the parameters' specs for an argument like them; others are whole on each device."""
    if _shapes(x) == _shapes(params):
        return specs
    return jax.tree.map(lambda x: PartitionSpec(), x)


def _shapes(tree: PyTree) -> PyTree:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [jnp.shape(x) for x in leaves]


def _over_automatic_axes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function, such as a loss, that runs as outside of `shard`; its result is whole."""

    def call(*args: Any, **kwargs: Any) -> Any:
        run = auto_axes(lambda args: function(*args, **kwargs), out_sharding=PartitionSpec())
        return run(args)

    return call


@checked
def zero(
    inner: TransformationLike, axis: str, params: Params | None = None
) -> GradientTransformation:
    """Divides the state and the work of a transformation over a mesh axis: ZeRO, stage 1.

    The axis is one over which the parameters are not divided, as in data parallel training. `init`
    divides the state over it. `update` takes the part of the gradients that belongs to a device's
    part of the state, computes that part of the updates, and gathers the updates. The numbers are
    those of the transformation.

    A leaf is divided along its longest axis among those whose length on a device is a multiple of
    the mesh axis's length; a leaf without one, such as a scalar, is replicated. A leaf that is
    divided over the mesh axis already stays as it is.

    Gradients come reduced or not. Reduced ones are the same on all devices, and taking a part costs
    nothing. Unreduced ones, which `jax.shard_map` returns with
    `out_specs=PartitionSpec(unreduced={axis})` over explicit axes, have to be reduced over the
    devices; `zero` does that by a reduce-scatter, which moves half as much as the all-reduce that
    it replaces.

    Args:
      inner: the transformation.
      axis: the name of the mesh axis.
      params: for parameters over automatic axes of a mesh, the parameters, or their shapes, dtypes
        and shardings, as for `shard`. Default: `None`, the axis is explicit, and is in the types of
        the arrays.

    Raises:
      ValueError: by `init`: no parameter has the axis as an explicit axis of its mesh, or no leaf
        can be divided.

    Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
    Models", arXiv:1910.02054.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.sharding import AxisType, NamedSharding, PartitionSpec
      >>> import gradtx
      >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
      >>> w = jax.device_put(jnp.ones((4, 2)), NamedSharding(mesh, PartitionSpec()))
      >>> tx = gradtx.zero(gradtx.adam(0.1), "data")
      >>> state = jax.jit(tx.init)(w)
      >>> print(jax.typeof(state[0].mu))
      float32[4@data,2]
      >>> updates, state = jax.jit(tx.update)(w, state, w)
      >>> print(jax.typeof(updates))
      float32[4,2]
    """
    divided = _zero(inner, axis)
    return divided if params is None else shard(divided, params)


@piece
def _zero(inner: TransformationLike, axis: str) -> GradientTransformation:
    tx = with_extra_args_support(inner)

    def init(params: Params) -> OptState:
        parts = _parts(params, axis)
        leaves = [x for x in jax.tree.leaves(parts) if jax.typeof(x).ndim]
        if leaves and not any(axis in _names(axes_of(x)) for x in leaves):
            shapes = ", ".join(sorted({str(x.shape) for x in leaves}))
            raise ValueError(
                f"zero: no parameter can be divided over the mesh axis {axis!r}, of length "
                f"{_mesh_with(params, axis).shape[axis]}; the shapes are {shapes}"
            )
        return tx.init(parts)

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        parts = None if params is None else _parts(params, axis)
        new, state = tx.update(_parts(updates, axis), state, parts, **extra)
        return jax.tree.map(_gathered, new, updates), state

    return wrapped(init, update, inner, name="zero")


def _mesh_with(tree: PyTree, axis: str) -> Any:
    mesh = explicit_mesh(jax.tree.leaves(tree))
    if mesh is None:
        raise ValueError(
            "zero: no parameter is on a mesh with explicit axes; for automatic axes give params=, "
            "the parameters or their shapes, dtypes and shardings"
        )
    if axis not in explicit_axes(mesh):
        told = ", ".join(map(repr, explicit_axes(mesh)))
        kind = "an axis" if explicit_axes(mesh) == mesh.axis_names else "an explicit axis"
        raise ValueError(f"zero: axis must be {kind} of the mesh, {told}, got {axis!r}")
    return mesh


def _parts(tree: PyTree, axis: str) -> PyTree:
    """Returns the leaves divided over the axis, where they can be."""
    if not jax.tree.leaves(tree):
        return tree
    mesh = _mesh_with(tree, axis)
    return jax.tree.map(lambda x: _part(x, axis, mesh), tree)


def _part(x: Array, axis: str, mesh: Any) -> Array:
    axes = list(axes_of(x))
    unreduced = axis in jax.typeof(x).sharding.spec.unreduced
    if axis in _names(axes):
        return x
    local = [
        n // math.prod(mesh.shape[a] for a in names) for n, names in zip(x.shape, axes, strict=True)
    ]
    able = [i for i, n in enumerate(local) if n and n % mesh.shape[axis] == 0]
    if not able:
        return reshard(x, NamedSharding(mesh, partition_spec(axes))) if unreduced else x
    where = max(able, key=local.__getitem__)
    before = partition_spec(axes)
    axes[where] = (*axes[where], axis)
    if not unreduced:
        return reshard(x, NamedSharding(mesh, partition_spec(axes)))
    return jax.shard_map(
        lambda x: lax.psum_scatter(x, axis, scatter_dimension=where, tiled=True),
        mesh=mesh,
        in_specs=before.update(unreduced={axis}),
        out_specs=partition_spec(axes),
    )(x)


def _gathered(new: Array, like: Array) -> Array:
    """Returns an update with the sharding of the gradient, reduced."""
    mesh = explicit_mesh([like])
    return new if mesh is None else reshard(new, NamedSharding(mesh, partition_spec(axes_of(like))))


def _names(axes: Any) -> set[str]:
    return {name for names in axes for name in names}
