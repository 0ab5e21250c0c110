"""PID: gradient descent as a controller."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import DECAY, NOT_NEGATIVE
from gradtx._roles import Count, Slot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import ema, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate


@declared_as("pid")
class PIDState(NamedTuple):
    """The state of `pid`.

    Attributes:
      count: the number of steps taken.
      trace: the velocity, the integral term.
      change: moving average of the changes of the gradient, the derivative term.
      last: the gradient of the last step.
    """

    count: Count
    trace: Slot
    change: Slot
    last: Slot


@optimizer(
    "An et al., 'A PID Controller Approach for Stochastic Optimization of Deep Networks', "
    "CVPR (2018)",
    family="momentum",
    probe={"learning_rate": 0.002},
    usual_rate=0.002,
    ranges={"momentum": DECAY, "integral": NOT_NEGATIVE, "derivative": NOT_NEGATIVE},
)
def pid(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar = 0.9,
    integral: Scalar = 5.0,
    derivative: Scalar = 10.0,
) -> GradientTransformation:
    """PID: SGD whose steps have the gradient, its sum and its change, as in a PID controller.

    `v = momentum*v + g; d = momentum*d + (1-momentum)*(g - last)`, where `last` is the gradient of
    the last step and the first change is 0; `p - learning_rate * (g + integral*v + derivative*d)`.
    Momentum is the integral term of a controller; its overshoot is damped by the derivative term.
    With noisy gradients, the derivative term is noise for the most part. With the defaults,
    constant gradients give steps 51 times as long as those of `sgd(learning_rate)`. The equations
    are those of the authors' program, with the paper's changes of the gradient: the program does
    not store the last gradient, so that its derivative term is a second velocity.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      momentum: the decay rate of the velocity and of the average of changes. Default: 0.9.
      integral: the weight of the velocity. Default: 5.
      derivative: the weight of the average of changes. Default: 10.

    Source: An et al., "A PID Controller Approach for Stochastic Optimization of Deep Networks",
    CVPR (2018).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.pid(0.1, momentum=0.0, integral=1.0, derivative=1.0)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [1.0, 3.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates)  # 3 + 3 + 2
      [-0.8]
    """

    def init(p: Array) -> Slots:
        return Slots(trace=jnp.zeros_like(p), change=jnp.zeros_like(p), last=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        v = lax.add(times(momentum, s.trace), g)
        d = ema(jnp.where(step == 0, 0, lax.sub(g, s.last)), s.change, momentum)
        u = lax.add(g, lax.add(times(integral, v), times(derivative, d)))
        return u, Slots(trace=v, change=d, last=g)

    return chain(leafwise(PIDState, init, update), scale_by_learning_rate(learning_rate))
