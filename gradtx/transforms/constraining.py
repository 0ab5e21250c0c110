"""Keeping updates and parameters in their bounds."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    OptState,
    Params,
    Updates,
    init_empty_state,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import widen
from gradtx.engine.paths import is_none
from gradtx.engine.roles import Statistic, Told, declared
from gradtx.engine.rules import Slots

NonNegativeParamsState = EmptyState


@declared
class ZeroNansState(NamedTuple):
    """The state of `zero_nans`.

    Attributes:
      found_nan: a tree like the parameters, of boolean scalars: whether the leaf's last update held
        a NaN.
    """

    found_nan: Annotated[Statistic, Told()]


@piece
def keep_params_nonnegative() -> GradientTransformation:
    """Shortens updates that would take parameters below zero, so that they end at zero.

    `max(g, -p)`, rounded towards zero where the updates are narrower than the parameters. Let it be
    the last of a chain, behind the learning rate. Parameters that are negative at the start are
    taken to zero. A NaN stays, for a guard to see.

    Raises:
      ValueError: `update` was called without params, or they differ from the updates in structure.
      TypeError: a parameter is complex.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.keep_params_nonnegative()
      >>> params = jnp.array([1.0, 1.0])
      >>> print(tx.update(jnp.array([-3.0, -0.5]), tx.init(params), params)[0])
      [-1.  -0.5]
    """

    def update(
        updates: Updates, state: OptState, params: Params, **extra: Any
    ) -> tuple[Updates, OptState]:
        return _stop_at_zero(updates, params), state

    return coupled(
        NonNegativeParamsState,
        init_empty_state,
        update,
        name="keep_params_nonnegative",
        params=True,
        real_only=True,
    )


# Over the tree, because a rule for one array does not know to which dtype its update is rounded.
@compiled_when_concrete
def _stop_at_zero(updates: Updates, params: Params) -> Updates:
    def stop(g: Any, p: Any) -> Any:
        dtype = jnp.result_type(g)
        g, p = widen(g), widen(p)
        g = jnp.maximum(g, -p)
        if g.dtype == dtype:
            return g
        g = g.astype(dtype)
        at = lax.stop_gradient(g)  # `nextafter` has no derivative
        return g + jnp.where(p + g < 0, jnp.nextafter(at, jnp.zeros_like(at)) - at, 0)

    return jax.tree.map(
        lambda g, p: None if g is None else stop(g, p), updates, params, is_leaf=is_none
    )


@piece
def zero_nans() -> GradientTransformation:
    """Replaces NaNs in the updates by zero, and notes in the state which leaves had any.

    Infinities pass by. A complex number with a NaN in either part becomes zero.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.zero_nans()
      >>> updates, state = tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))
      >>> print(updates, state.found_nan)
      [1. 0.] True
    """
    return leafwise(ZeroNansState, _nothing_found, _zero_nans, integers=True, name="zero_nans")


def _nothing_found(p: Array) -> Slots:
    return Slots(found_nan=jnp.zeros((), bool))


def _zero_nans(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    nan = jnp.isnan(g)
    return jnp.where(nan, jnp.zeros_like(g), g), Slots(found_nan=jnp.any(nan))
