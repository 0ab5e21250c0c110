"""AdaNorm, with Adam."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import DECAY
from gradtx._roles import Count, Slot, UnsignedSlot, UnsignedStatistic, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like
from gradtx.tree.norms import norms


@declared_as("adanorm")
class AdaNormState(NamedTuple):
    """The state of `adanorm`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients, of which short ones are lengthened.
      nu: moving average of squared gradients, real.
      norm: for each leaf the moving average of its gradient's norm.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot
    norm: UnsignedStatistic


@optimizer(
    "Dubey, Singh and Chaudhuri, 'AdaNorm: Adaptive Gradient Norm Correction based Optimizer for "
    "CNNs', arXiv:2210.06364",
    family="Adam",
    acts_on="leaf",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
    ranges={"gamma": DECAY},
)
def adanorm(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    gamma: Scalar = 0.95,
    eps: Scalar = 1e-8,
) -> GradientTransformation:
    """AdamNorm: Adam with momentum of gradients that have at least their usual norm.

    `norm = gamma*norm + (1-gamma)*|g|; s = g * max(norm / |g|, 1)`, with norms over one leaf;
    `mu = b1*mu + (1-b1)*s; nu = b2*nu + (1-b2)*g^2`, and the step of `adam` with these averages.
    Gradients that are shorter than their average count as much as others, so that single batches
    with small gradients do not slow it down. Near a minimum, noise is amplified likewise.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of lengthened gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      gamma: the decay rate of the average of norms. Default: 0.95.
      eps: added to the root. Default: 1e-8.

    Source: Dubey, Singh and Chaudhuri, "AdaNorm: Adaptive Gradient Norm Correction based Optimizer
    for CNNs", arXiv:2210.06364.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adanorm(1e-3, gamma=0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [4.0, 1.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(state[0].norm)  # 2, then 3/2
      1.5
    """

    def init(p: Array) -> Slots:
        return Slots(**vars(zero_moments(p)), norm=real_full_like(jnp.zeros((), p.dtype), 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        (size,) = norms(g)
        norm = ema(size, s.norm, gamma)
        longer = jnp.where(norm > size, norm / jnp.where(size > 0, size, 1), 1)
        mu, nu = ema(times(longer, g), s.mu, b1), ema(abs_sq(g), s.nu, b2)
        u = ratio(over(mu, s.mu_weight), over(nu, s.nu_weight), eps)
        return u, Slots(mu=mu, nu=nu, norm=norm)

    return chain(
        leafwise(AdaNormState, init, update, per_step=moment_weights(b1, b2)),
        scale_by_learning_rate(learning_rate),
    )
