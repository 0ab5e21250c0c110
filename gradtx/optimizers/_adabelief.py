"""AdaBelief."""

from typing import NamedTuple

from jax import lax

from gradtx._roles import Count, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@declared
class ScaleByBeliefState(NamedTuple):
    """The state of `scale_by_belief`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: moving average of the squared distances between gradients and `mu`, real.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot


@piece
def scale_by_belief(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Divides an average of gradients by the root mean square deviation of gradients from it.

    `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2)*|g - mu|^2 + eps_root; mu_hat = mu / (1-b1**t);
    nu_hat = nu / (1-b2**t); mu_hat / (sqrt(nu_hat) + eps)`, where `t` is 1 at the first step. With
    Nesterov momentum, `mu_hat = b1 * mu / (1-b1**(t+1)) + (1-b1) * g / (1-b1**t)`.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-16.
      eps_root: added to `nu` at every step, where it accumulates to at most `eps_root / (1-b2)`.
        Default: 1e-16.
      nesterov: whether to use Nesterov momentum. Default: False.

    Source: Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed
    Gradients", arXiv:2010.07468, which has the same epsilon in both places.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_belief()
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [1.111111]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        nu = plus(ema(abs_sq(lax.sub(g, mu)), s.nu, b2), eps_root)
        mu_hat = over(mu, s.mu_weight)
        if nesterov:
            mu_hat = ema(over(g, s.mu_weight), over(mu, s.next_mu_weight), b1)
        return ratio(mu_hat, over(nu, s.nu_weight), eps), Slots(mu=mu, nu=nu)

    weights = moment_weights(b1, b2, look_ahead=nesterov)
    return leafwise(ScaleByBeliefState, zero_moments, update, per_step=weights)


@optimizer(
    "Zhuang et al., 'AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients', "
    "arXiv:2010.07468",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: ScalarOrSchedule | None = None,
    weight_decay_mask: MaskOrFn | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """AdaBelief: Adam that takes long steps where gradients are close to their average.

    `p - learning_rate * (mu_hat / (sqrt(nu_hat) + eps) + weight_decay * p)`, see `scale_by_belief`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-16.
      eps_root: added to the average of squares at every step. Default: 1e-16.
      weight_decay: the coefficient of decoupled weight decay; a number, a scalar array or a
        schedule. Default: `None`, no decay, and no state for it.
      weight_decay_mask: which parameters decay: a pytree of booleans, or a function of the
        parameters that returns one. Default: all.
      nesterov: whether to use Nesterov momentum. Default: False.

    Raises:
      ValueError: `update` was called without params, and there is weight decay.

    Source: Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed
    Gradients", arXiv:2010.07468.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adabelief(1e-3)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.00111111]
    """
    decay = [] if weight_decay is None else [add_decayed_weights(weight_decay, weight_decay_mask)]
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov),
        *decay,
        scale_by_learning_rate(learning_rate),
    )
