"""KATE."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._roles import UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, plus, ratio, root, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like


@declared_as("kate")
class KateState(NamedTuple):
    """The state of `kate`.

    Attributes:
      sum_of_squares: the sum of squared gradients, real.
      sum_of_ratios: the sum of squares, each divided by the sum of squares so far, real.
    """

    sum_of_squares: UnsignedSlot
    sum_of_ratios: UnsignedSlot


@optimizer(
    "Choudhury et al., 'Remove that Square Root: A New Efficient Scale-Invariant Version of "
    "AdaGrad', arXiv:2403.02648",
    family="AdaGrad",
    probe={"learning_rate": 1.0},
    usual_rate=0.001,
)
def kate(
    learning_rate: ScalarOrSchedule, eta: Scalar = 0.0, eps: Scalar = 1e-8
) -> GradientTransformation:
    """KATE: AdaGrad without the root, so that steps do not depend on the scale of the features.

    `b2 = b2 + |g|^2; m2 = m2 + eta*|g|^2 + |g|^2/(b2 + eps);
    p - learning_rate * sqrt(m2) * g / (b2 + eps)`. If a feature of a generalized linear model is
    multiplied by a constant, and the weights divided by it, the predictions after each step are the
    same. The steps themselves are divided by a constant that multiplies the loss: unlike in
    AdaGrad, the learning rate depends on the unit of the loss.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 1e-3 for networks.
      eta: the weight of the sum of squares in the numerator; in the unit of 1 divided by a squared
        gradient, for invariance. Default: 0, as in the authors' experiments with networks.
      eps: added to the sum of squares, as in the authors' program; the paper has none. Default:
        1e-8.

    Source: Choudhury et al., "Remove that Square Root: A New Efficient Scale-Invariant Version of
    AdaGrad", arXiv:2403.02648.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.kate(0.1)
      >>> print(tx.update(jnp.array([4.0, 0.1]), tx.init(jnp.zeros(2)))[0].round(4))
      [-0.025 -1.   ]
    """

    def init(p: Array) -> Slots:
        return Slots(sum_of_squares=real_full_like(p, 0), sum_of_ratios=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        squares = lax.add(s.sum_of_squares, abs_sq(g))
        # Roots before products, because the squares of large gradients overflow.
        scaled = ratio(g, plus(squares, eps), 0.0)
        size = jnp.abs(g)
        ratios = lax.add(s.sum_of_ratios, abs_sq(scaled) + times(eta, size) * size)
        u = ratio(root(ratios) * scaled, plus(squares, eps), 0.0)
        return u, Slots(sum_of_squares=squares, sum_of_ratios=ratios)

    return chain(leafwise(KateState, init, update), scale_by_learning_rate(learning_rate))
