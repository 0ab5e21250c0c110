"""Grafting: the direction of one transformation with the magnitude of another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._roles import Inner, declared
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    Params,
    PyTree,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import widen
from gradtx.engine.pipeline import wrapped
from gradtx.engine.rules import Slots
from gradtx.matrices.matrixwise import matrixwise
from gradtx.tree.norms import norms


@declared
class GraftState(NamedTuple):
    """The state of `graft`.

    Attributes:
      direction: the state of the transformation that determines directions.
      magnitude: the state of the transformation that determines norms.
    """

    direction: Inner
    magnitude: Inner


@piece
def graft(
    direction: TransformationLike,
    magnitude: TransformationLike,
    *,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Scales each leaf's update of one transformation to the norm of another's.

    `u * norm(v) / norm(u)` for each leaf, or for each of its matrices, where `u` is the update of
    `direction` and `v` that of `magnitude`, for the same gradients; 0 where `u` is 0.

    Args:
      direction: the transformation whose updates are scaled.
      magnitude: the transformation whose updates give the norms.
      weight_dimension_numbers: the axes of the matrices in each tensor, which are scaled one by
        one: a pytree of `MatrixAxes`, like the parameters or a prefix of them, or a function of the
        parameters that returns one. Default: `None`, each leaf is scaled as a whole.

    Raises:
      ValueError: by `init` and `update`: the axes do not match a leaf's shape.

    Source: Agarwal et al., "Disentangling Adaptive Gradient Methods from Learning Rates",
    arXiv:2002.11803.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.graft(gradtx.scale_by_sign(), gradtx.identity())
      >>> g = jnp.array([3.0, -4.0])
      >>> print(tx.update(g, tx.init(g))[0])
      [ 3.535534 -3.535534]
    """
    of_direction, of_magnitude = map(with_extra_args_support, (direction, magnitude))
    matrices = None
    if weight_dimension_numbers is not None:
        matrices = matrixwise(
            EmptyState, None, _of_stack, axes=weight_dimension_numbers, params=True,
            argument="weight_dimension_numbers", name="graft",
        )  # fmt: skip

    def init(params: Params) -> GraftState:
        state = GraftState(of_direction.init(params), of_magnitude.init(params))
        if matrices is not None:
            matrices.init(params)  # it checks the axes
        return state

    def update(
        updates: Updates, state: GraftState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, GraftState]:
        u, of_u = of_direction.update(updates, state.direction, params, **extra)
        v, of_v = of_magnitude.update(updates, state.magnitude, params, **extra)
        new = GraftState(of_u, of_v)
        if matrices is None:
            return _scaled(u, v), new
        return matrices.update(u, EmptyState(), v)[0], new

    traits = {"passes_to": (of_direction, of_magnitude), "inner": (of_direction, of_magnitude)}
    return wrapped(init, update, name="graft", state=GraftState, traits=traits)


@compiled_when_concrete
def _scaled(u: Updates, v: Updates) -> Updates:
    return jax.tree.map(_to_norm, u, v)


def _of_stack(u: Array, s: Slots, step: None, v: Array) -> tuple[Array, Slots]:
    return _to_norm(u, v, (1, 2)), Slots()


def _to_norm(u: Array, v: Array, axis: tuple[int, ...] | None = None) -> Array:
    of_u, of_v = norms(u, v, axis=axis)
    nonzero = of_u != 0  # NaN is passed on
    unit = jnp.where(nonzero, widen(u) / jnp.where(nonzero, of_u, 1), 0)
    return jnp.asarray(unit * of_v, jnp.result_type(u))
