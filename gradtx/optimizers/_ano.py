"""Ano."""

import jax.numpy as jnp

from gradtx._arguments import DECAY
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@optimizer(
    "Kegreisz, 'Ano: Faster is Better in Noisy Landscapes', arXiv:2508.18258",
    family="sign",
    probe={"learning_rate": 0.05},
    usual_rate=1e-4,
    # Below 1/2, the second moment may become negative.
    ranges={"b2": DECAY._replace(low=0.5, told="be in [0.5, 1)")},
)
def ano(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.92,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Ano: steps in the direction of momentum's signs, with the magnitudes of the gradient.

    `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2) * sign(|g|^2 - nu) * |g|^2;
    u = |g| * sign(mu) / (sqrt(nu / (1-b2**t)) + eps); p - learning_rate * (u + weight_decay*p)`,
    where `t` is 1 at the first step. Momentum smooths the direction, and the length follows the
    gradient at once. It is for noisy and changing problems, such as reinforcement learning. The
    second moment is that of `yogi` with a decay. The equations are those of pytorch_optimizer's
    program; the paper's analysis has in addition a learning rate that decays with `t**(-3/4)`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the author's is 1e-4.
      b1: the decay rate of the average of gradients. Default: 0.92.
      b2: the decay rate of the second moment, in [0.5, 1). Default: 0.99.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `b2` is not in [0.5, 1), or `update` was called without params.

    Source: Kegreisz, "Ano: Faster is Better in Noisy Landscapes", arXiv:2508.18258.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.ano(1e-3, b1=0.9)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for g in [4.0, -4.0]:
      ...     updates, state = tx.update(jnp.array([g]), state, params)
      >>> print(updates)  # the momentum is still positive
      [0.001...]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, square = ema(g, s.mu, b1), abs_sq(g)
        # A comparison, because squares that have overflowed have no difference.
        signed = jnp.where(square > s.nu, square, jnp.where(square < s.nu, -square, 0))
        nu = ema(signed, s.nu, b2)
        u = jnp.abs(g) * jnp.sign(mu)
        return ratio(u, over(nu, s.nu_weight), eps), Slots(mu=mu, nu=nu)

    return chain(
        leafwise(ScaleByAdamState, zero_moments, update, per_step=moment_weights(b1, b2)),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
