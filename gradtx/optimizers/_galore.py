"""GaLore: an optimizer on projections onto the largest singular vectors of gradients."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx._roles import Count, Projected, Statistic, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    OptState,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
    Updates,
)
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import times, widen
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.pipeline import named, pipeline_of
from gradtx.engine.rules import LeafError, MaskedNode
from gradtx.engine.scalars import finished
from gradtx.linear_algebra.singular_vectors import principal_vectors
from gradtx.matrices.layout import Layout, MatrixAxes, Place, places_of
from gradtx.matrices.stacks import Column, map_stacks, placed, placed_like
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import ARGUMENT, axes_or_none
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import next_count

GALORE = (
    "Zhao et al., 'GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection', "
    "arXiv:2403.03507"
)

GaLoreDimensionNumbers = MatrixAxes


@declared_as("galore")
class GaLoreState(NamedTuple):
    """The state of `scale_by_galore`.

    Attributes:
      count: the number of steps taken.
      base_optimizer_state: the state of the optimizer that sees the projected gradients.
      projector: for each leaf that is projected, the orthonormal columns of `P`,
        `[..., side that shrinks, rank]`; `MaskedNode()` for the others.
    """

    count: Count
    base_optimizer_state: Projected
    projector: Statistic


@piece
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Runs an optimizer on low-rank projections of matrices, so that its state is small.

    Every `update_proj_gap` steps, from the first on, `P` becomes the `rank` leading left singular
    vectors of `g`; the update is `scale * P @ base(P.H @ g)`. Tall matrices are transposed before
    and after. So the shorter side shrinks, and for `m <= n` the state of Adam has
    `m * rank + 2 * n * rank` numbers in place of `2 * m * n`. If the rank is not below the shorter
    side, the longer side is projected instead, to the size of the shorter. Other leaves go to the
    base optimizer unchanged. Matrices of one shape are processed in one batch, and singular
    vectors are computed only at the steps that recompute `P`.

    The signs of singular vectors are arbitrary: each new vector gets the sign (for complex numbers
    the phase) for which its inner product with the vector that it replaces is positive. So the
    moments of the base optimizer stay valid, and the steps do not depend on the linear algebra
    library. The steps of a linear base optimizer depend on `P @ P.H` only. Those of a nonlinear
    one, such as Adam, depend on the basis `P`, which is not unique where singular values are equal
    or 0. Moments are not rotated when `P` changes.

    A gradient of zeros, or one that is not finite, leaves `P` unchanged. Before the first step
    `P` holds the first unit vectors. Derivatives treat `P` as a constant.

    Args:
      rank: the number of singular vectors; a Python integer, at least 1. Default: 128.
      update_proj_gap: the number of steps for which `P` is kept; an integer, at least 1. Default:
        200.
      scale: the factor of the steps of projected matrices, the paper's `alpha`. Default: 1; the
        paper takes 0.25.
      base_optimizer: the optimizer of the projected gradients; if it needs parameters, they are
        projected as well. Default: `scale_by_adam()`.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of
        `GaLoreDimensionNumbers`, like the parameters or a prefix of them, or a function of the
        parameters that returns one; leaves that are not projected have `None`. A single one for the
        whole tree applies to leaves with at least two axes. Default: the leaves with two axes are
        projected.

    Raises:
      TypeError: `rank` is not a Python integer.
      ValueError: `rank` or `update_proj_gap` is less than 1, or the dimension numbers of a leaf do
        not fit it.

    Source: Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
    arXiv:2403.03507, Algorithm 2.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_galore(rank=1, base_optimizer=gradtx.identity())
      >>> g = jnp.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> print(tx.update(g, tx.init(g))[0])
      [[3. 0. 0.]
       [0. 0. 0.]]
    """
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise TypeError(f"scale_by_galore: rank must be a Python integer, got {rank!r}")
    base = scale_by_adam() if base_optimizer is None else base_optimizer
    base = named(pipeline_of(base).transformation(), "scale_by_galore")

    def places(tree: PyTree, name: str) -> dict[int, Place]:
        return _places(tree, name, weight_dimension_numbers, rank)

    def init(params: Params) -> GaLoreState:
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        projector: list[Array | MaskedNode | None] = [
            None if x is None else MaskedNode() for x in leaves
        ]
        low = list(leaves)
        for i, place in places(params, "params").items():
            low[i], projector[i] = _first(leaves[i], place, rank)
        return GaLoreState(
            jnp.zeros((), jnp.int32),
            base.init(treedef.unflatten(low)),
            treedef.unflatten(projector),
        )

    @compiled_when_concrete
    def project(
        updates: Updates, params: Params | None, projector: Updates, count: Array
    ) -> tuple[Updates, Params | None, Updates]:
        here = places(updates, "updates")
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        columns = align(treedef, projector, "state.projector", updates)
        trees = [leaves] if params is None else [leaves, align(treedef, params, "params", updates)]

        p = _projectors(columns, here)

        def renewed() -> dict[int, Array]:
            still = [lax.stop_gradient(x) for x in (_matrices(leaves, here).arrays, p.arrays)]
            given = [_matrices(still[0], here), p._replace(arrays=still[1])]
            return map_stacks(_principal_vectors, given, [p])[0]

        if here:
            p = p._replace(arrays=branch(count % update_proj_gap == 0, renewed, lambda: p.arrays))
        given = [_matrices(tree, here) for tree in trees]
        low = [_projections(tree, columns, here) for tree in trees]
        found = map_stacks(lambda p, *xs: [_into(p, x) for x in xs], [p, *given], low)
        for tree, new in zip((columns, *trees), (p.arrays, *found), strict=True):
            for i, x in new.items():
                tree[i] = x
        projector, updates, *seen = map(treedef.unflatten, (columns, *trees))
        return updates, seen[0] if seen else None, projector

    @compiled_when_concrete
    def put_back(updates: Updates, steps: Updates, projector: Updates) -> Updates:
        here = places(updates, "updates")
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        columns = align(treedef, projector, "state.projector", updates)
        found = align(treedef, steps, "the steps of the base optimizer", updates)

        def on_stacks(p: Array, u: Array) -> list[Array]:
            return [times(scale, _back(p, u))]

        low = _projections(leaves, columns, here)
        low = low._replace(arrays={i: found[i] for i in here})
        given = [_projectors(columns, here), low]
        (whole,) = map_stacks(on_stacks, given, [_matrices(leaves, here)])
        for i, x in whole.items():
            found[i] = x
        return treedef.unflatten(found)

    def update(
        updates: Updates, state: GaLoreState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, GaLoreState]:
        _check(updates, state, places(updates, "updates"), rank)
        g, seen, projector = project(updates, params, state.projector, state.count)
        try:
            steps, base_state = base.update(g, state.base_optimizer_state, seen, **extra)
        except ValueError as e:
            wanted = jax.eval_shape(base.init, g if seen is None else seen)
            told = _of_projected(updates, state, wanted, places(updates, "updates"))
            raise type(e)(f"{e}{told}") from e.__cause__
        new = GaLoreState(next_count(state.count, update_proj_gap), base_state, projector)
        return put_back(updates, steps, projector), new

    traits = {"passes_to": (base,)}
    return coupled(GaLoreState, init, update, name="scale_by_galore", traits=traits)


def _places(
    tree: PyTree, name: str, axes: PyTree | Callable[[Params], PyTree] | None, rank: int
) -> dict[int, Place]:
    """Returns the places of the leaves that are projected; their rows are the side that shrinks."""
    leaves = jax.tree.leaves(tree, is_leaf=is_none)
    found = axes_or_none(axes, tree)
    active = [
        x is not None and a is not None and math.prod(jnp.shape(x)) > 0
        for x, a in zip(leaves, found, strict=True)
    ]
    places = places_of(tree, name, found, active, lying=True, argument=ARGUMENT)
    return {i: _longer(x) if rank >= x.shape[0] < x.shape[1] else x for i, x in places.items()}


def _longer(place: Place) -> Place:
    return place._replace(transposed=not place.transposed)


def _of_projector(place: Place, rank: int) -> tuple[int, ...]:
    """Returns the shape of a leaf's projector in the state."""
    return (*place.layout.counts, place.shape[0], min(rank, *place.shape))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _first(leaf: ArrayLike, place: Place, rank: int) -> tuple[Array, Array]:
    """Returns zeros in place of a leaf's projections, and its first projector: unit vectors."""
    shape, dtype = _of_projector(place, rank), widen(leaf).dtype
    mine = _place_of_projector(place, shape)
    low = placed_like(leaf, place.layout, place.with_rows(shape[-1]).layout, dtype)
    wanted = placed_like(leaf, place.layout, mine.layout, dtype)
    units = jnp.broadcast_to(jnp.eye(*shape[-2:], dtype=dtype), shape)
    return placed(jnp.zeros(low.shape, dtype), low.sharding), placed(units, wanted.sharding)


def _place_of_projector(place: Place, shape: tuple[int, ...]) -> Place:
    """Returns the place of a leaf's projectors, for their shape."""
    order = tuple(range(len(shape)))
    return Place(Layout(order, shape, place.layout.counted, shape[-2:]))


def _matrices(leaves: Sequence[Any] | dict[int, Any], places: dict[int, Place]) -> Column:
    return Column({i: leaves[i] for i in places}, places)


def _projectors(columns: Sequence[Any], places: dict[int, Place]) -> Column:
    """Returns the projectors as an argument of functions of stacks."""
    found = {i: _place_of_projector(place, columns[i].shape) for i, place in places.items()}
    return Column({i: columns[i] for i in places}, found, "state.projector")


def _projections(leaves: Sequence[Any], columns: Sequence[Any], places: dict[int, Place]) -> Column:
    """Returns the types of the projections of leaves."""
    found = {i: place.with_rows(columns[i].shape[-1]) for i, place in places.items()}
    types = {
        i: placed_like(
            leaves[i],
            places[i].layout,
            place.layout,
            jnp.result_type(widen(leaves[i]), columns[i]),
        )
        for i, place in found.items()
    }
    return Column(types, found)


def _check(updates: Updates, state: GaLoreState, places: dict[int, Place], rank: int) -> None:
    """Raises unless the state was made for leaves like the updates."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    columns = align(treedef, state.projector, "state.projector", updates)
    for i, place in places.items():
        p, wanted, shape = columns[i], _of_projector(place, rank), jnp.shape(leaves[i])
        held = getattr(p, "shape", None)
        path = nth_path(updates, i)
        if held != wanted:
            told = "no array" if held is None else f"shape {held}"
            raise LeafError(
                ValueError,
                f"updates{path} has shape {shape}, for which state.projector must have shape "
                f"{wanted}, got {told}{_held_beside(state, path, p)}",
            )
        if jnp.iscomplexobj(leaves[i]) and not jnp.iscomplexobj(p):
            dtype = jnp.result_type(leaves[i])
            raise LeafError(
                TypeError,
                f"updates{path} is {dtype}, but state.projector is {p.dtype}; call init with "
                "complex parameters",
            )


def _of_projected(
    updates: Updates, state: GaLoreState, wanted: OptState, places: dict[int, Place]
) -> str:
    """Returns the end of an error: the leaf whose projection does not fit the base state."""
    columns = jax.tree.leaves(state.projector, is_leaf=lambda x: x is None or x == MaskedNode())
    leaves = jax.tree.leaves(updates, is_leaf=is_none)
    for i in places:
        path = nth_path(updates, i)
        if _shapes_at(state.base_optimizer_state, path) != _shapes_at(wanted, path):
            told = f"; updates{path} is a projection of {jnp.shape(leaves[i])}"
            return told + _held_beside(state, path, columns[i])
    return ""


def _shapes_at(state: OptState, path: str) -> list[tuple[int, ...]]:
    """Returns the shapes that a state has for a leaf."""
    flat = jax.tree.leaves_with_path(state)
    return sorted({x.shape for at, x in flat if jax.tree_util.keystr(at).endswith(path)})


def _held_beside(state: GaLoreState, path: str, p: Array | MaskedNode) -> str:
    """Returns the shapes in a base optimizer's state for a leaf, and what they depend on."""
    shapes = _shapes_at(state.base_optimizer_state, path)
    if not shapes:
        return ""
    told = f"; the base optimizer's state holds {' and '.join(map(str, shapes))} there"
    rows, rank = getattr(p, "shape", (0, 0))[-2:]
    made = {(*x[:i], rows, *x[i + 1 :]) for x in shapes for i in range(len(x)) if x[i] == rank}
    return told + (f", the state of a leaf of shape {' or '.join(map(str, made))}" if made else "")


def _as_wide(x: Array, p: Array) -> Array:
    """Casts a stack to the dtype of its projectors, if that is wider."""
    return lax.convert_element_type(x, jnp.result_type(x, p))


def _into(p: Array, g: Array) -> Array:
    """Returns `p.H @ g`."""
    p, g = _as_wide(p, g), _as_wide(g, p)
    p = lax.conj(p) if jnp.iscomplexobj(p) else p
    return lax.dot_general(p, g, (((1,), (1,)), ((0,), (0,))))


def _back(p: Array, u: Array) -> Array:
    """Returns `p @ u`."""
    return lax.dot_general(_as_wide(p, u), _as_wide(u, p), (((2,), (1,)), ((0,), (0,))))


def _principal_vectors(g: Array, old: Array) -> list[Array]:
    # Each leaf takes a slice of this stack, without its computation in each leaf's own kernel.
    return [finished(principal_vectors(g, old))]


@optimizer(
    GALORE,
    family="low rank",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "rank": 1, "update_proj_gap": 5},
    usual_rate=0.001,
)
def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """GaLore: Adam, or another optimizer, on low-rank projections of matrices.

    `p - learning_rate * (scale * P @ base(P.H @ g) + weight_decay * p)`, where `P` is recomputed
    every `update_proj_gap` steps; see `scale_by_galore`. Leaves that are not matrices get
    `base(g)`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      rank: the number of singular vectors; a Python integer, at least 1. Default: 128.
      update_proj_gap: the number of steps for which `P` is kept; an integer, at least 1. Default:
        200.
      scale: the factor of the steps of projected matrices. Default: 1; the paper takes 0.25.
      base_optimizer: the optimizer of the projected gradients, without a learning rate. Default:
        `scale_by_adam()`.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of
        `GaLoreDimensionNumbers`, like the parameters or a prefix of them, or a function of the
        parameters that returns one; leaves that are not projected have `None`. Default: the leaves
        with two axes are projected.

    Raises:
      TypeError: `rank` is not a Python integer.
      ValueError: `rank` or `update_proj_gap` is less than 1, the dimension numbers of a leaf do not
        fit it, or `update` was called without params.

    Source: Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
    arXiv:2403.03507.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.ones((64, 256)), "b": jnp.ones(256)}
      >>> state = gradtx.galore(1e-3, rank=4).init(params)
      >>> state[0].projector["w"].shape, state[0].base_optimizer_state.nu["w"].shape
      ((64, 4), (4, 256))
    """
    return chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
