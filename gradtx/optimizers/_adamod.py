"""AdaMod."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._roles import Count, Rate, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, like, over, ratio
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import moment_weights, zero_moments
from gradtx.tree.filling import real_full_like


@declared_as("adamod")
class AdaModState(NamedTuple):
    """The state of `adamod`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: moving average of squared gradients, real.
      rates: moving average of the learning rates of all elements, real.
      learning_rate: the learning rate of the last step.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot
    rates: UnsignedSlot
    learning_rate: Rate


@optimizer(
    "Ding et al., 'An Adaptive and Momental Bound Method for Stochastic Learning', "
    "arXiv:1910.12249",
    family="Adam",
    probe={"learning_rate": 0.1, "b3": 0.9},
    usual_rate=0.001,
)
def adamod(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> GradientTransformation:
    """AdaMod: Adam whose learning rate for each element is at most its own moving average.

    `mu_hat` and `nu_hat` are those of `adam`: `rate = learning_rate / (sqrt(nu_hat) + eps);
    rates = b3*rates + (1-b3)*rate; p - min(rate, rates) * mu_hat`. It trains without warm-up of the
    learning rate: `rates` starts at 0, and with `b3 = 0.999` is at half of its value after 700
    steps. Sudden rises of rates are smoothed out. The authors' program has the bias correction of
    `mu` inside the rates that are averaged.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      b3: the decay rate of the average of learning rates. Default: 0.999.
      eps: added to the root. Default: 1e-8.

    Source: Ding et al., "An Adaptive and Momental Bound Method for Stochastic Learning",
    arXiv:1910.12249.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adamod(1e-3, b3=0.5)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.0005]
    """

    def init(p: Array) -> Slots:
        return Slots(**vars(zero_moments(p)), rates=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        rate = jnp.broadcast_to(like(s.learning_rate, nu), nu.shape)
        rate = ratio(rate, over(nu, s.nu_weight), eps)
        rates = ema(rate, s.rates, b3)
        u = -jnp.minimum(rate, rates) * over(mu, s.mu_weight)
        return u, Slots(mu=mu, nu=nu, rates=rates)

    return leafwise(AdaModState, init, update, rate=learning_rate, per_step=moment_weights(b1, b2))
