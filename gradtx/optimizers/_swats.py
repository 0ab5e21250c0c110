"""SWATS: from Adam to SGD."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx._arguments import NOT_NEGATIVE
from gradtx._roles import Count, Shared, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import ema, over, ratio, safe_increment, times, value_of
from gradtx.engine.scalars import finished, total
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.slots import as_slots, as_updates, zero_slots
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.present import common_dtype, present, replaced


@declared_as("swats")
class SWATSState(NamedTuple):
    """The state of `swats`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients; after the switch the velocity.
      nu: moving average of squared gradients before the switch.
      suggested: moving average of the learning rates of SGD that Adam's steps suggest, in units of
        the learning rate.
      rate: the learning rate of SGD in this unit, 0 before the switch.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot
    suggested: Shared
    rate: Shared


@optimizer(
    "Keskar and Socher, 'Improving Generalization Performance by Switching from Adam to SGD', "
    "arXiv:1712.07628",
    family="Adam",
    acts_on="tree",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
    ranges={"tolerance": NOT_NEGATIVE},
)
def swats(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-9,
    tolerance: Scalar = 1e-6,
) -> GradientTransformation:
    """SWATS: Adam that switches to SGD with momentum, and estimates its learning rate, once.

    With the step `p - learning_rate * u` of `adam`, and products over all leaves,
    `r = <u, u> / <u, g>; suggested = b2*suggested + (1-b2)*r`. After the first step at which
    `|suggested / (1-b2**t) - r| < tolerance`, the average being positive and `t` above 1, that
    average is the rate `r` for the rest of the run: `v = b1*v + g;
    p - learning_rate * r * (1-b1) * v`, where `v` starts at 0. It is for convolutional networks
    that begin well with Adam but end better with SGD. Whether and when it switches depends on a
    coincidence of two numbers: with `tolerance` too small in float32 it never switches, and with
    noise the switch is at a random step. The learning rate and its schedule multiply the steps of
    SGD too, and so `tolerance` is relative to it; the paper's is 1e-9 for the rate 1e-3.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's is 1e-3.
      b1: the decay rate of momentum, in both phases. Default: 0.9.
      b2: the decay rate of the averages of squares and of suggested rates. Default: 0.999.
      eps: added to the root. Default: 1e-9, as in the paper.
      tolerance: how near a suggested rate must be to the average of all. Default: 1e-6.

    Raises:
      TypeError: parameters are complex.

    Source: Keskar and Socher, "Improving Generalization Performance by Switching from Adam to SGD",
    arXiv:1712.07628.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.swats(0.1)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [4.0, 4.0, 8.0]:  # the rate is 1/4 after the second
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates)
      [-0.1]
      [-0.1]
      [-0.02]
    """
    return chain(_scale_by_swats(b1, b2, eps, tolerance), scale_by_learning_rate(learning_rate))


@piece
def _scale_by_swats(
    b1: Scalar, b2: Scalar, eps: Scalar, tolerance: Scalar
) -> GradientTransformation:
    def init(params: Params) -> SWATSState:
        zero = jnp.zeros((), common_dtype(params))
        return SWATSState(
            jnp.zeros((), jnp.int32), zero_slots(params), zero_slots(params), zero, zero + 0
        )

    @compiled_when_concrete
    def step(updates: Updates, state: SWATSState) -> tuple[Updates, SWATSState]:
        slots = {"state.mu": state.mu, "state.nu": state.nu}
        given, mu, nu = present(updates, updates=updates, **slots)
        g = as_slots(given, mu)
        t = step_number(state.count)
        mu_weight, nu_weight = gathered_weight(b1, t), gathered_weight(b2, t)
        descends = finished(state.rate > 0)

        averages = [ema(x, m, b1) for x, m in zip(g, mu, strict=True)]
        squares = [ema(x * x, v, b2) for x, v in zip(g, nu, strict=True)]
        adam = [
            ratio(over(m, mu_weight), over(v, nu_weight), eps)
            for m, v in zip(averages, squares, strict=True)
        ]
        along = _sum_of_products(adam, g, state.rate)
        square = _sum_of_products(adam, adam, state.rate)
        opposed = along != 0
        suggestion = square / jnp.where(opposed, along, 1)
        suggested = jnp.where(opposed, ema(suggestion, state.suggested, b2), state.suggested)
        average = suggested / nu_weight.astype(suggested.dtype)
        near = opposed & (average > 0) & (jnp.abs(average - suggestion) < value_of(tolerance))
        switches = finished(near & (state.count > 0) & (state.rate == 0))

        velocities = [times(b1, m) + x for x, m in zip(g, mu, strict=True)]
        sgd = finished(state.rate * value_of(1 - b1))
        moves = [
            jnp.where(descends, times(sgd, v), u) for v, u in zip(velocities, adam, strict=True)
        ]
        new_mu = [
            jnp.where(descends, v, jnp.where(switches, 0, m))
            for v, m in zip(velocities, averages, strict=True)
        ]
        new_nu = [jnp.where(descends, old, v) for old, v in zip(nu, squares, strict=True)]
        return replaced(updates, updates, as_updates(moves, given)), SWATSState(
            safe_increment(state.count),
            replaced(state.mu, updates, new_mu),
            replaced(state.nu, updates, new_nu),
            jnp.where(descends, state.suggested, suggested),
            jnp.where(switches, average, state.rate),
        )

    def update(
        updates: Updates, state: SWATSState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SWATSState]:
        del params, extra
        return step(updates, state)

    return coupled(SWATSState, init, update, name="scale_by_swats", real_only=True)


def _sum_of_products(x: list[Array], y: list[Array], like: Array) -> Array:
    """Returns the sum of the products of all elements, in the dtype of a number."""
    return total([jnp.sum(a * b) for a, b in zip(x, y, strict=True)]).astype(like.dtype)
