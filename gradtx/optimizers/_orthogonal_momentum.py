"""Orthogonalized momentum, of Muon and methods that contain it."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._roles import Count, Shared, Slot, declared
from gradtx.engine.base import Array, EmptyState, GradientTransformation, Params, PyTree, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import ema, over, times
from gradtx.engine.pipeline import Pipeline, gather, pipeline_of
from gradtx.engine.rules import Slots
from gradtx.linear_algebra.orthogonalizing import (
    Coefficients,
    Form,
    Preconditioning,
    orthogonalized,
    values_of,
)
from gradtx.matrices.layout import Layout
from gradtx.matrices.matrixwise import matrixwise
from gradtx.transforms.storing import store_as
from gradtx.tree.moments import gathered_weight, step_number


@declared
class MuonState(NamedTuple):
    """The state of `scale_by_muon`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      ns_coeffs: the coefficients of the Newton–Schulz polynomials.
    """

    count: Count
    mu: Slot
    ns_coeffs: Shared


@functools.partial(piece, constants=("ns_coeffs",))
def orthogonal_momentum(
    ns_coeffs: Coefficients,
    ns_steps: int,
    beta: Scalar,
    eps: Scalar,
    mu_dtype: DTypeLike | None,
    nesterov: bool,
    adaptive: bool,
    preconditioning: Preconditioning,
    axes: PyTree | Callable[[Params], PyTree] | None,
    form: Form,
    factor: Callable[[int, int], Scalar] | None,
) -> GradientTransformation:
    """Returns `scale_by_muon` with a factor that depends on a matrix's rows and columns."""

    def per_step(step: Scalar) -> dict[str, Array]:
        t = step_number(step)
        return {"weight": gathered_weight(beta, t), "next_weight": gathered_weight(beta, t + 1)}

    def average(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, beta)
        m = over(mu, s.weight)
        if nesterov:
            m = ema(over(g, s.weight), over(mu, s.next_weight), beta)
        return m, Slots(mu=mu)

    def orthogonalize(m: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        o = orthogonalized(m, ns_coeffs, ns_steps, form, preconditioning, eps)
        if adaptive:
            o = o * jnp.sum((m.conj() * o).real, (1, 2), keepdims=True)
        return o, Slots()

    def after(o: Array, layout: Layout) -> Array:
        return o if factor is None else times(factor(layout.rows, layout.columns), o)

    momentum = store_as(
        leafwise(
            MuonState,
            lambda p: Slots(mu=jnp.zeros_like(p)),
            average,
            per_step=per_step,
            scalars={"ns_coeffs": values_of(ns_coeffs)},
            name="scale_by_muon",
        ),
        mu=mu_dtype,
    )
    matrices = matrixwise(
        EmptyState, None, orthogonalize, axes=axes, lying=True, after=after,
        argument="weight_dimension_numbers", name="scale_by_muon",
    )  # fmt: skip
    # The orthogonalization has no state, so the state is that of the momentum alone.
    links, (skeleton, _) = gather([pipeline_of(momentum), pipeline_of(matrices)])
    return Pipeline(links, skeleton).transformation()
