"""Gravity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._arguments import DECAY, NOT_NEGATIVE
from gradtx._roles import Count, Rate, Slot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, times, value_of
from gradtx.engine.rules import Slots, value_at
from gradtx.transforms.noise import as_key
from gradtx.tree.moments import step_number


@declared_as("gravity")
class GravityState(NamedTuple):
    """The state of `gravity`.

    Attributes:
      count: the number of steps taken.
      velocity: moving average of the bounded gradients, which starts at random numbers.
      learning_rate: the learning rate of the last step.
    """

    count: Count
    velocity: Slot
    learning_rate: Rate


@optimizer(
    "Bahrami and Zadeh, 'Gravity Optimizer: a Kinematic Approach on Optimization in Deep "
    "Learning', arXiv:2101.09192",
    family="momentum",
    acts_on="leaf",
    # Without its noise, so that it can be compared; the noise has a test of its own.
    probe={"learning_rate": 3.0, "alpha": 0.0, "beta": 0.99, "key": 0},
    usual_rate=0.1,
    ranges={"alpha": NOT_NEGATIVE, "beta": DECAY},
)
def gravity(
    learning_rate: ScalarOrSchedule,
    alpha: Scalar = 0.01,
    beta: Scalar = 0.9,
    key: int | Array | None = None,
) -> GradientTransformation:
    """Gravity: momentum of gradients of which very large ones count less, from a random start.

    `z = g / (1 + (|g| * max(|g|))**2)`, with the maximum over one leaf;
    `b = (beta*step + 1) / (step + 2); v = b*v + (1-b)*z; p - learning_rate * v`, where `step` is 0
    at the first step, and `v` starts at `normal() * alpha / learning_rate`. So the parameters are
    moved by noise of about `alpha`, whatever the learning rate is, in the first steps. `init` draws
    it for the learning rate of step 0, also if that step is taken with
    `update(..., learning_rate=...)`, and for 1 if the rate is 0. `z` depends on the unit of the
    loss: it is the gradient where gradients are much smaller than 1, and where `|g| * max(|g|)` is
    above 1, larger gradients give smaller steps. The paper's evidence is from VGG networks on small
    images.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 0.1.
      alpha: the standard deviation of the first velocity, times the learning rate. Default: 0.01.
      beta: the decay rate of the velocity after many steps. Default: 0.9.
      key: a random key of JAX, or a seed. Default: the seed 0, and so the same noise in every run.

    Raises:
      ValueError: `key` holds several keys.

    Source: Bahrami and Zadeh, "Gravity Optimizer: a Kinematic Approach on Optimization in Deep
    Learning", arXiv:2101.09192.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.gravity(0.1, alpha=0.0)
      >>> print(tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))[0])  # 1/2 * 1/2
      [-0.025]
    """

    def per_step(step: Scalar) -> dict[str, Array]:
        t = step_number(step)
        return {"decay": (times(beta, t - 1) + 1) / (t + 1)}

    def init(p: Array, key: Array) -> Slots:
        with jax.ensure_compile_time_eval():  # a schedule may be any Python function
            rate = value_of(value_at(learning_rate, np.int32(0)))
        deviation = value_of(alpha) / jnp.where(rate > 0, rate, 1)
        # The sum is sharded like the parameter.
        normal = jnp.zeros_like(p) + jax.random.normal(key, p.shape, p.dtype)
        return Slots(velocity=times(deviation, normal))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        g = g / 1  # integers become floating
        bounded = g / (1 + abs_sq(g * jnp.max(jnp.abs(g), initial=0)))
        v = ema(bounded, s.velocity, s.decay)
        return times(-value_of(s.learning_rate), v), Slots(velocity=v)

    return leafwise(
        GravityState,
        init,
        update,
        rate=learning_rate,
        per_step=per_step,
        key=as_key(key, None, "gravity"),
    )
