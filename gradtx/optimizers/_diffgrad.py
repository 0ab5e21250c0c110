"""diffGrad."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx._roles import Count, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate


@declared_as("diffgrad")
class DiffGradState(NamedTuple):
    """The state of `diffgrad`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: moving average of squared gradients, real.
      last: the gradient of the last step.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot
    last: Slot


@optimizer(
    "Dubey et al., 'diffGrad: An Optimization Method for Convolutional Neural Networks', "
    "arXiv:1909.11015",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def diffgrad(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> GradientTransformation:
    """diffGrad: Adam whose steps are shorter where the gradient has not changed.

    `p - learning_rate * sigmoid(|g - last|) * mu_hat / (sqrt(nu_hat) + eps)`, where `last` is the
    gradient of the last step, 0 before the first, and `mu_hat` and `nu_hat` are those of `adam`.
    The factor is between 1/2 and 1. It depends on the unit of the loss: where gradients are much
    smaller than 1, it is 1/2, and this is Adam with half the learning rate.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.

    Source: Dubey et al., "diffGrad: An Optimization Method for Convolutional Neural Networks",
    arXiv:1909.11015.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.diffgrad(1e-3)
      >>> print(tx.update(jnp.array([0.5]), tx.init(jnp.zeros(1)))[0])
      [-0.00062246]
    """

    def init(p: Array) -> Slots:
        return Slots(**vars(zero_moments(p)), last=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        friction = jax.nn.sigmoid(jnp.abs(lax.sub(g, s.last)))
        u = ratio(over(mu, s.mu_weight), over(nu, s.nu_weight), eps)
        return friction * u, Slots(mu=mu, nu=nu, last=g)

    return chain(
        leafwise(DiffGradState, init, update, per_step=moment_weights(b1, b2)),
        scale_by_learning_rate(learning_rate),
    )
