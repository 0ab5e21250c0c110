"""FAdam."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import POSITIVE
from gradtx._roles import Count, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times, value_of
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import root_mean_square


@declared_as("fadam")
class FAdamState(NamedTuple):
    """The state of `fadam`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of natural gradients.
      nu: moving average of squared gradients, the diagonal of the Fisher information, real.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot


@optimizer(
    "Hwang, 'FAdam: Adam is a natural gradient optimizer using diagonal empirical Fisher "
    "information', arXiv:2405.12807",
    family="Adam",
    acts_on="leaf",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
    ranges={"clip": POSITIVE},
)
def fadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    clip: Scalar = 1.0,
    weight_decay: Scalar = 0.01,
) -> GradientTransformation:
    """FAdam: Adam as natural gradient descent: momentum of scaled gradients, and scaled decay.

    `nu = b2*nu + (1-b2)*|g|^2; f = sqrt(nu / (1-b2**t)) + eps * min(rms(g), 1);
    mu = b1*mu + (1-b1) * clipped(g / f);
    p - learning_rate * (mu + weight_decay * clipped(p / f))`, where `t` is 1 at the first step,
    `clipped(x) = x / max(rms(x) / clip, 1)`, and the root mean squares are those of one leaf. So
    the decay is that of an L2 penalty in natural gradient descent: the smaller the gradients of an
    element, the more it decays. Elements whose gradients were always 0 do not decay; in published
    programs they dominate the decay of their leaf. Without bias correction of `mu`, the first steps
    are short. Apart from clipping and decay it is `laprop`. Published programs differ in `eps` and
    in `weight_decay`; the equations are as given in pytorch_optimizer's.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of natural gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root, times the gradient's root mean square if that is below 1. Default:
        1e-8.
      clip: the largest root mean square of natural gradients, and of the decay. Default: 1.
      weight_decay: the coefficient of the decay; the learning rate multiplies it. Default: 0.01.

    Raises:
      ValueError: `update` was called without params.

    Source: Hwang, "FAdam: Adam is a natural gradient optimizer using diagonal empirical Fisher
    information", arXiv:2405.12807.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.fadam(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.0001]
    """

    def clipped(x: Array) -> Array:
        return over(x, jnp.maximum(root_mean_square(x) / value_of(clip), 1))

    def per_step(step: Scalar) -> dict[str, Array]:
        return {"nu_weight": gathered_weight(b2, step_number(step))}

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        nu = ema(abs_sq(g), s.nu, b2)
        nu_hat = over(nu, s.nu_weight)
        own = times(eps, jnp.minimum(root_mean_square(g), 1))
        mu = ema(clipped(ratio(g, nu_hat, own)), s.mu, b1)
        known = nu > 0
        decay = clipped(jnp.where(known, ratio(p, jnp.where(known, nu_hat, 1), own), 0))
        return mu + times(weight_decay, decay), Slots(mu=mu, nu=nu)

    return chain(
        leafwise(FAdamState, zero_moments, update, params=True, per_step=per_step),
        scale_by_learning_rate(learning_rate),
    )
