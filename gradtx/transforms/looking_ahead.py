"""Lookahead: fast parameters, and slow ones that follow them."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._apply import apply_updates
from gradtx._roles import Count, Role, Told, declared
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
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import widen
from gradtx.engine.paths import align, is_none
from gradtx.engine.pipeline import wrapped
from gradtx.transforms.guards import begun_again


class LookaheadParams(NamedTuple):
    """The two sets of parameters of `lookahead`.

    Attributes:
      fast: the parameters at which gradients are taken.
      slow: the parameters that follow the fast ones, for evaluation.
    """

    fast: Params
    slow: Params

    @classmethod
    def init_synced(cls, params: Params) -> "LookaheadParams":
        """Returns the initial pair: `params` and a copy of them.

        Args:
          params: a pytree of arrays.
        """
        return cls(fast=params, slow=jax.tree.map(lambda x: jnp.array(x, copy=True), params))


@declared
class LookaheadState(NamedTuple):
    """The state of `lookahead`.

    Attributes:
      fast_state: the state of the fast optimizer.
      steps_since_sync: the number of steps of the fast optimizer since the two sets of parameters
        were equal.
    """

    fast_state: Annotated[OptState, Role("inner", of="fast")]
    steps_since_sync: Annotated[Count, Told()]


@piece
def lookahead(
    fast_optimizer: TransformationLike,
    sync_period: int,
    slow_step_size: Scalar,
    reset_state: bool = False,
) -> GradientTransformation:
    """Moves slow parameters part of the way to the fast ones every few steps of an optimizer.

    The optimizer updates `fast`. After every `sync_period` of its steps,
    `slow = slow + slow_step_size * (fast - slow); fast = slow`. Between these steps `slow` does not
    change.

    The parameters are a pair: start from `LookaheadParams.init_synced(params)`, take gradients at
    `params.fast`, and give the pair to `update`, which returns a pair of updates. These must be
    applied unchanged; otherwise the two sets are not equal after a synchronization.

    Args:
      fast_optimizer: the optimizer of the fast parameters.
      sync_period: the number of its steps between two steps of the slow parameters; at least 1.
      slow_step_size: the step size of the slow parameters, not negative; usually in (0, 1).
      reset_state: whether the optimizer's state is reset after each step of the slow parameters.
        Default: False.

    Raises:
      ValueError: `sync_period` is less than 1, or `update` was called without params.
      TypeError: the params given to `update` are not `LookaheadParams`.

    Source: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", arXiv:1907.08610,
    Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.lookahead(gradtx.sgd(1.0), sync_period=2, slow_step_size=0.5)
      >>> params = gradtx.LookaheadParams.init_synced(jnp.array([0.0]))
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([-1.0]), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      ...     print(params.fast, params.slow)
      [1.] [0.]
      [1.] [1.]
    """
    fast_optimizer = with_extra_args_support(fast_optimizer)

    def init(params: Params) -> LookaheadState:
        return LookaheadState(
            fast_state=fast_optimizer.init(getattr(params, "fast", params)),
            steps_since_sync=jnp.zeros((), jnp.int32),
        )

    def update(
        updates: Updates, state: LookaheadState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, LookaheadState]:
        if params is None:
            raise ValueError("lookahead: needs the parameters: call update(updates, state, params)")
        if not (hasattr(params, "fast") and hasattr(params, "slow")):
            raise TypeError(
                f"lookahead: params must be a LookaheadParams, got a {type(params).__name__}; "
                "start from LookaheadParams.init_synced(params)"
            )
        moves, fast_state = fast_optimizer.update(updates, state.fast_state, params.fast, **extra)
        steps = state.steps_since_sync + 1
        due = steps >= sync_period
        fast, slow = _follow(due, moves, params.fast, params.slow, slow_step_size)
        if reset_state:
            fast_state = branch(
                due,
                lambda: begun_again(fast_optimizer, apply_updates(params.fast, fast), fast_state),
                lambda: fast_state,
            )
        steps = jnp.where(due, 0, steps)
        return params._replace(fast=fast, slow=slow), LookaheadState(fast_state, steps)

    traits = {"passes_to": (fast_optimizer,)}
    return wrapped(init, update, name="lookahead", state=LookaheadState, traits=traits)


@compiled_when_concrete
def _follow(
    due: Array, moves: Updates, fast: Params, slow: Params, step_size: Scalar
) -> tuple[Updates, Updates]:
    """Returns the updates of both sets of parameters."""
    leaves, treedef = jax.tree.flatten(moves, is_leaf=is_none)
    rows = zip(
        leaves,
        align(treedef, fast, "params.fast", moves),
        align(treedef, slow, "params.slow", moves),
        strict=True,
    )

    def one(u: ArrayLike | None, f: ArrayLike, s: ArrayLike) -> tuple[Array | None, Array | None]:
        if u is None:
            return None, None
        # As precise as the parameters, so that rounding does not make the two sets differ.
        dtype, kept = jnp.result_type(u, f, s), jnp.result_type(s)
        u, f, s = widen(u), widen(f), widen(s)
        # Both updates lead to the same number, computed once.
        there = widen((s + step_size * (f + u - s)).astype(kept))
        fast_update, slow_update = jnp.where(due, there - f, u), jnp.where(due, there - s, 0)
        return fast_update.astype(dtype), slow_update.astype(dtype)

    pairs = [one(*row) for row in rows]
    return treedef.unflatten(f for f, _ in pairs), treedef.unflatten(s for _, s in pairs)
