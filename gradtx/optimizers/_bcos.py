"""BCOS."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import DECAY
from gradtx._roles import Count, Slot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, ratio
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@declared_as("bcos")
class BCOSState(NamedTuple):
    """The state of `bcos`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients, which starts with the first.
    """

    count: Count
    mu: Slot


@optimizer(
    "Jiang and Xiao, 'Stochastic Approximation with Block Coordinate Optimal Stepsizes', "
    "arXiv:2507.08963",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=1e-3,
    ranges={"b2": DECAY},
)
def bcos(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar | None = None,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.1,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """BCOS: momentum divided by its expected size, which needs half of Adam's memory.

    `nu = b2*|mu|^2 + (1-b2)*|g|^2`, with the last `mu`; `mu = b1*mu + (1-b1)*g;
    p - learning_rate * (mu / (sqrt(nu) + eps) + weight_decay*p)`. At the first step, `mu` is `g`
    before as well. The divisor is an estimate of the second moment of the momentum from the last
    momentum and the gradient, so that nothing else is stored. This is BCOS-c with the simple
    conditional estimator, as in the authors' program. The other two estimators are moving averages:
    of `|g|^2` without momentum, which is RMSProp, and of `|mu|^2`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 1e-3.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the weight of the last momentum in the divisor. Default: `None`, for `1 - (1-b1)**2`, as
        in the paper.
      eps: added to the root. Default: 1e-6.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.1.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Jiang and Xiao, "Stochastic Approximation with Block Coordinate Optimal Stepsizes",
    arXiv:2507.08963.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.bcos(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.001]
    """
    decay = 1 - (1 - b1) ** 2 if b2 is None else b2

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        last = jnp.where(step == 0, g, s.mu)
        mu = ema(g, last, b1)
        return ratio(mu, ema(abs_sq(g), abs_sq(last), decay), eps), Slots(mu=mu)

    return chain(
        leafwise(BCOSState, init, update),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
