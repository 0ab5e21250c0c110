"""Keeping updates finite and parameters within bounds."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx._roles import Statistic, Told, declared
from gradtx.codecs import nearest
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
from gradtx.engine.rules import Slots

NonNegativeParamsState = EmptyState


@declared
class ZeroNansState(NamedTuple):
    """The state of `zero_nans`.

    Attributes:
      found_nan: a pytree of boolean scalars, one per leaf: whether the leaf's last update contained
        a NaN.
    """

    found_nan: Annotated[Statistic, Told()]


@piece
def keep_params_nonnegative() -> GradientTransformation:
    """Shortens updates that would make parameters negative, so that the parameters become zero.

    `max(g, -p)`, rounded towards zero where the updates are narrower than the parameters. It must
    be the last part of a chain, after the learning rate. Parameters that are negative at the start
    are set to zero. NaN is kept, so that guards can detect it.

    Raises:
      ValueError: `update` was called without params, or they differ from the updates in structure.
      TypeError: a parameter or an update is complex.

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
        traits={"last": True},
    )


# Over the tree, because a rule for one array does not get the dtype to which its update is rounded.
@compiled_when_concrete
def _stop_at_zero(updates: Updates, params: Params) -> Updates:
    def stop(g: ArrayLike, p: ArrayLike) -> Array:
        dtype = jnp.result_type(g)
        g, p = widen(g), widen(p)
        g = jnp.maximum(g, -p)
        if g.dtype == dtype:
            return g
        g = nearest(g, dtype).astype(dtype)
        at = lax.stop_gradient(g)  # `nextafter` has no derivative
        return g + jnp.where(p + g < 0, jnp.nextafter(at, jnp.zeros_like(at)) - at, 0)

    return jax.tree.map(
        lambda g, p: None if g is None else stop(g, p), updates, params, is_leaf=is_none
    )


@piece
def zero_nans() -> GradientTransformation:
    """Replaces NaN in the updates by zero, and records in the state which leaves had any.

    Infinities are kept. A complex number with NaN in either part becomes zero.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.zero_nans()
      >>> updates, state = tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))
      >>> print(updates, state.found_nan)
      [1. 0.] True
    """
    return leafwise(ZeroNansState, _no_nan_found, _zero_nans, integers=True, name="zero_nans")


def _no_nan_found(p: Array) -> Slots:
    return Slots(found_nan=jnp.zeros((), bool))


def _zero_nans(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
    nan = jnp.isnan(g)
    return jnp.where(nan, jnp.zeros_like(g), g), Slots(found_nan=jnp.any(nan))
