"""Methods that have the learning rate inside of their equations, not as a factor at their end."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    ScalarOrSchedule,
    Updates,
)
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import default_float, safe_increment
from gradtx.engine.roles import Inner, Role, declared
from gradtx.engine.rules import Slots
from gradtx.transforms.scaling import ScaleByLearningRateState, rate_of


@declared
class RatedState(NamedTuple):
    """The state of a method that has the learning rate inside of its equations.

    The fields of the method's own state can be read here, too: `state.estim_lr` of Prodigy.

    Attributes:
      inner_state: the method's own state.
      rate: the number of steps taken, and the rate that the last one used.
    """

    inner_state: Inner
    rate: Annotated[ScaleByLearningRateState, Role("inner")]

    @property
    def count(self) -> Array:  # which would be tuple.count
        """The number of steps taken."""
        return self.rate.count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner_state, name)


def rated(
    state_init: Callable[[Params], OptState],
    state_update: Callable[..., tuple[Updates, OptState]],
    learning_rate: ScalarOrSchedule,
    *,
    name: str,
    needs: tuple[str, ...] = (),
    params: bool = False,
    real_only: bool = False,
) -> GradientTransformation:
    """Makes a transformation of a hand-written pair that needs the learning rate of each step.

    The rate comes from `learning_rate`, or from the call, `update(..., learning_rate=x)`; it stays
    readable in the state, as after `scale_by_learning_rate`. For the rest it is as `coupled` says.

    Args:
      state_init: `state_init(params) -> state`.
      state_update: `state_update(updates, state, params, *, learning_rate, **extra)`, which gives
        the updates and the next state.
      learning_rate: a number, a scalar array, or a schedule.
      name: what errors call the method.
      needs: the extra arguments that it cannot do without. Default: none.
      params: whether it needs the parameters. Default: no.
      real_only: whether complex parameters are refused. Default: no.

    Example:
      >>> import jax
      >>> from gradtx.transforms.rated import rated
      >>> def update(updates, state, params, *, learning_rate, **extra):
      ...     return jax.tree.map(lambda u: -learning_rate * u, updates), state
      >>> tx = rated(lambda params: (), update, lambda count: 1.0 / (count + 1), name="descent")
      >>> state = tx.init(1.0)
      >>> for _ in range(2):
      ...     step, state = tx.update(3.0, state)
      >>> print(step, state.rate.learning_rate)
      -1.5 0.5
    """
    rate_at = rate_of(learning_rate)

    def init(tree: Params) -> RatedState:
        count = jnp.zeros((), jnp.int32)
        first = jnp.asarray(rate_at(count, {})["learning_rate"], default_float())
        return RatedState(state_init(tree), ScaleByLearningRateState(count, first))

    def update(
        updates: Updates, state: RatedState, tree: Params | None, **extra: Any
    ) -> tuple[Updates, RatedState]:
        count, last = state.rate
        given = {**extra, **rate_at(count, extra)}
        updates, inner_state = state_update(updates, state.inner_state, tree, **given)
        used = jnp.asarray(given["learning_rate"], jnp.result_type(last))
        rate = ScaleByLearningRateState(safe_increment(count), used)
        return updates, RatedState(inner_state, rate)

    return coupled(
        RatedState, init, update, name=name, needs=needs, params=params, real_only=real_only
    )


def readable_rate(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """Passes updates on, and keeps the learning rate that a leafwise rule before it used.

    Such a rule gets the rate by `shared=rate_of(learning_rate)`, and its state has no field for it.

    Args:
      learning_rate: the rule's: a number, a scalar array, or a schedule.

    Example:
      >>> from gradtx.transforms.rated import readable_rate
      >>> tx = readable_rate(0.5)
      >>> updates, state = tx.update(3.0, tx.init(1.0), learning_rate=0.25)
      >>> print(updates, state.learning_rate)
      3.0 0.25
    """
    return leafwise(
        ScaleByLearningRateState, None, _pass, shared=rate_of(learning_rate), name="readable_rate"
    )


def _pass(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    return g, Slots()
