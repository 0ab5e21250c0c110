"""FTRL-Proximal."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import NOT_NEGATIVE
from gradtx._roles import Count, Rate, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots
from gradtx.tree.norms import safe_sqrt


@declared_as("ftrl")
class FTRLState(NamedTuple):
    """The state of `ftrl`.

    Attributes:
      count: the number of steps taken.
      excess: the slope of the regularization, times the negative learning rate; 0 without it.
      n: the sum of squared gradients.
      learning_rate: the learning rate of the last step.
    """

    count: Count
    excess: Slot
    n: UnsignedSlot
    learning_rate: Rate


@optimizer(
    "McMahan et al., 'Ad Click Prediction: a View from the Trenches' (2013)",
    family="AdaGrad",
    probe={"learning_rate": 0.5},
    usual_rate=0.1,
    ranges={"beta": NOT_NEGATIVE},
)
def ftrl(
    learning_rate: ScalarOrSchedule, beta: Scalar = 1.0, l1: Scalar = 0.0, l2: Scalar = 0.0
) -> GradientTransformation:
    """FTRL-Proximal: AdaGrad for sparse linear models, with L1 regularization that gives zeros.

    `n_last = n; n = n + g^2; z = z + learning_rate*g - (sqrt(n) - sqrt(n_last))*p`, and the new
    parameters are `-(z - sign(z)*learning_rate*l1) / (beta + sqrt(n) + learning_rate*l2)` where
    `|z| > learning_rate*l1`, and exactly 0 elsewhere. Without `l1` and `l2` it is
    `p - learning_rate * g / (beta + sqrt(n))`. It is for online learning of linear models with many
    features, of which few shall have a weight.

    Here `z` is the paper's, times the learning rate, so that under a schedule each gradient keeps
    the rate of its own step. It starts at `-beta*p`, which is 0 for parameters that start at 0 as
    in the paper; others are not drawn to 0. The state has `z + (beta + sqrt(n))*p`, which is small.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's alpha.
      beta: added to the root of the sum of squares. Default: 1, as in the paper.
      l1: the coefficient of L1 regularization, in the loss. Default: 0.
      l2: the coefficient of L2 regularization: `l2/2 * p^2` in the loss. Default: 0.

    Raises:
      TypeError: parameters are complex.
      ValueError: `update` was called without params.

    Source: McMahan et al., "Ad Click Prediction: a View from the Trenches" (2013).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.ftrl(1.0, l1=1.0)
      >>> params = jnp.zeros(2)
      >>> print(tx.update(jnp.array([3.0, 0.5]), tx.init(params), params)[0])  # -(3-1) / (1+3)
      [-0.5  0. ]
    """

    def init(p: Array) -> Slots:
        return Slots(excess=jnp.zeros_like(p), n=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        n = s.n + g * g
        threshold, shrinkage = s.learning_rate * l1, s.learning_rate * l2
        root = safe_sqrt(n) + beta
        # The new parameters are a difference of large numbers, of which this is the small one.
        pull = s.excess + times(s.learning_rate, g)
        z = pull - jnp.where(p == 0, 0, root * p)  # the root may be infinite
        inside = jnp.clip(z, -threshold, threshold)
        divisor = root + shrinkage
        defined = divisor > 0  # not before the first gradient, if beta is 0
        free = -(pull + shrinkage * p - inside) / jnp.where(defined, divisor, 1)
        u = jnp.where(defined, jnp.where(jnp.abs(z) > threshold, free, -p), 0)
        return u, Slots(excess=inside - shrinkage * (p + u), n=n)

    return leafwise(FTRLState, init, update, params=True, real_only=True, rate=learning_rate)
