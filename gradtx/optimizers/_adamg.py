"""AdamG."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import NOT_NEGATIVE
from gradtx._roles import Count, Rate, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times, value_of
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import moment_weights, zero_moments
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import step_number


@declared_as("adamg")
class AdamGState(NamedTuple):
    """The state of `adamg`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients, each times `golden`.
      nu: moving average of squared gradients, real.
      golden: moving average of the step sizes that the second moment suggests, real.
      learning_rate: the learning rate of the last step.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot
    golden: UnsignedSlot
    learning_rate: Rate


@optimizer(
    "Pang et al., 'Towards Stability of Parameter-free Optimization', arXiv:2405.04376",
    family="learning-rate-free",
    probe={"learning_rate": 1.0},
    ranges={"coefficient": NOT_NEGATIVE, "power": NOT_NEGATIVE},
)
def adamg(
    learning_rate: ScalarOrSchedule = 1.0,
    b1: Scalar = 0.95,
    b2: Scalar = 0.999,
    b3: Scalar = 0.95,
    coefficient: Scalar = 0.2,
    power: Scalar = 0.24,
    eps: Scalar = 1e-8,
) -> GradientTransformation:
    """AdamG: Adam whose learning rate is a fixed function of the second moment, without tuning.

    `nu = b2*nu + (1-b2)*|g|^2; golden = b3*golden + (1-b3) * coefficient * nu**power;
    mu = b1*mu + (1-b1)*golden*g; rate = min(learning_rate, 1/sqrt(t));
    p - rate * mu / (1-b1**t) / (sqrt(nu / (1-b2**t)) + eps)`, where `t` is 1 at the first step. It
    is for first trials on a new problem. Neither `golden` nor the second moment in it has a bias
    correction, so that the first steps are short. Despite the name, steps depend on the unit of the
    loss: they grow with about the square root of the gradient. The equations are those of the
    authors' program.

    Args:
      learning_rate: the largest factor of the steps; a number, a scalar array or a schedule. A
        schedule that decays still helps. Default: 1.
      b1: the decay rate of the average of scaled gradients. Default: 0.95.
      b2: the decay rate of the average of squares. Default: 0.999.
      b3: the decay rate of `golden`. Default: 0.95.
      coefficient: the factor of `golden`. Default: 0.2.
      power: the power of the second moment in `golden`. Default: 0.24.
      eps: added to the root. Default: 1e-8.

    Source: Pang et al., "Towards Stability of Parameter-free Optimization", arXiv:2405.04376.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adamg(b3=0.0, b2=0.0, power=0.5)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])  # 0.2 * 4
      [-0.8]
    """
    weights = moment_weights(b1, b2)

    def per_step(step: Scalar) -> dict[str, Array]:
        return weights(step) | {"cap": step_number(step) ** -0.5}

    def init(p: Array) -> Slots:
        return Slots(**vars(zero_moments(p)), golden=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        nu = ema(abs_sq(g), s.nu, b2)
        # Elsewhere the power may have no derivative, or no finite product with a gradient.
        known = (nu > 0) & jnp.isfinite(nu)
        size = jnp.where(known, jnp.where(known, nu, 1) ** value_of(power), 0)
        golden = ema(times(coefficient, size), s.golden, b3)
        mu = ema(golden * g, s.mu, b1)
        rate = jnp.minimum(value_of(s.learning_rate), s.cap)
        u = ratio(over(mu, s.mu_weight), over(nu, s.nu_weight), eps)
        return times(-rate, u), Slots(mu=mu, nu=nu, golden=golden)

    return leafwise(AdamGState, init, update, rate=learning_rate, per_step=per_step)
