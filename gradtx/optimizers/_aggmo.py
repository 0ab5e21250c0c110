"""AggMo: several velocities with different decay rates."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._roles import Statistic, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import stacked_zeros


@declared_as("aggmo")
class AggMoState(NamedTuple):
    """The state of `aggmo`.

    Attributes:
      trace: for each leaf its velocities, one for each decay rate, along a leading axis.
    """

    trace: Statistic


@optimizer(
    "Lucas et al., 'Aggregated Momentum: Stability Through Passive Damping', arXiv:1804.00325",
    family="momentum",
    probe={"learning_rate": 0.05},
    usual_rate=0.1,
)
def aggmo(
    learning_rate: ScalarOrSchedule, betas: tuple[Scalar, Scalar, Scalar] = (0.0, 0.9, 0.99)
) -> GradientTransformation:
    """AggMo: the mean of several velocities, each with its own decay rate.

    `v_i = betas[i]*v_i + g; p - learning_rate * (v_1 + ... + v_n) / n`. The small decay rates damp
    the oscillations of the large ones, so that a decay rate near 1 is stable; it is of use where
    momentum of 0.99 would be fast but oscillates. There is a slot for each velocity.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      betas: the decay rates of the velocities. Default: (0, 0.9, 0.99), as in the paper, which
        advises `1 - 0.1**i`.

    Source: Lucas et al., "Aggregated Momentum: Stability Through Passive Damping",
    arXiv:1804.00325.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.aggmo(0.1, betas=(0.0, 0.5, 0.75))
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      >>> print(updates)  # the velocities are 1, 1.5 and 1.75
      [-0.14166667]
    """

    def init(p: Array) -> Slots:
        return Slots(trace=stacked_zeros(p, len(betas)))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        v = jnp.stack([lax.add(times(beta, s.trace[i]), g) for i, beta in enumerate(betas)])
        return jnp.mean(v, axis=0), Slots(trace=v)

    return chain(leafwise(AggMoState, init, update), scale_by_learning_rate(learning_rate))
