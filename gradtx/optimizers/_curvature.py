"""Methods with momentum and an average of estimates of the Hessian's diagonal."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    Scalar,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.pipeline import pipeline_of
from gradtx.transforms.guards import cast_like
from gradtx.transforms.slots import zero_slots
from gradtx.tree.present import present, replaced


def by_curvature(
    hessian: TransformationLike,
    interval: Scalar,
    state_class: type,
    average: Callable[[list[Array], list[Array]], list[Array]],
    step: Callable[..., tuple[Any, ...]],
    *,
    name: str,
    report: Callable[..., None] | None = None,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Returns the part of a method before decay and learning rate.

    Args:
      hessian: a transformation that returns estimates of the Hessian's diagonal as its updates.
      interval: the number of steps from one estimate to the next, beginning with the first step.
      state_class: the NamedTuple class of the state: `count`, `mu`, `nu`, `hessian_fn_state`.
      average: `average(h, nu)`, the new averages from estimates and averages.
      step: `step(updates, mu, nu, count)`, which returns the directions, the new `mu`, the new
        count, and what is reported.
      name: its name in error messages.
      report: `report(count, ...)`, called with what `step` returns. Default: nothing is reported.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
    """
    needs = [n for link in pipeline_of(hessian).links for n in link.needs]
    hessian = with_extra_args_support(hessian)

    def init(params: Params) -> Any:
        mu, count = zero_slots(params), jnp.zeros((), jnp.int32)
        if mu_dtype is not None:
            mu = jax.tree.map(lambda x: x.astype(mu_dtype), mu)
        return state_class(count, mu, zero_slots(params), hessian.init(params))

    averaged, stepped = compiled_when_concrete(average), compiled_when_concrete(step)

    def update(updates: Updates, state: Any, params: Params, **extra: Any) -> tuple[Updates, Any]:
        named = {"state.mu": state.mu, "state.nu": state.nu}
        given, mu, nu = present(updates, updates=updates, **named)
        held = state.hessian_fn_state

        def estimate() -> tuple[list[Array], OptState]:
            found, new = hessian.update(updates, held, params, **extra)
            (h,) = present(updates, hessian_diagonal=found)
            return averaged(h, nu), cast_like(new, held)

        nu, held = branch(state.count % interval == 0, estimate, lambda: (nu, held))
        moves, mu, count, *told = stepped(given, mu, nu, state.count)
        if report is not None:
            report(count, *told)
        return replaced(updates, updates, moves), state_class(
            count=count,
            mu=replaced(state.mu, updates, mu),
            nu=replaced(state.nu, updates, nu),
            hessian_fn_state=held,
        )

    return coupled(
        state_class,
        init,
        update,
        name=name,
        needs=tuple(dict.fromkeys(needs)),
        params=True,
        real_only=True,
        traits={"passes_to": (hessian,)},
    )
