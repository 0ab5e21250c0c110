"""AdaMax, the variant of Adam with the infinity norm."""

import functools

import jax.numpy as jnp

from gradtx._arguments import FRACTION
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import ema, is_never_zero, over
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ADAM, ADAMW, ScaleByAdamState, moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@functools.partial(piece, ranges={"b2": FRACTION})
def scale_by_adamax(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> GradientTransformation:
    """Divides an average of gradients by a decaying maximum of their magnitudes.

    `mu = b1*mu + (1-b1)*g; nu = max(b2*nu, |g| + eps); (mu / (1-b1**t)) / nu`, where `t` is 1 at
    the first step.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the maximum. Default: 0.999.
      eps: added to the magnitude, so that the quotient is finite; the paper has no `eps`. Default:
        1e-8.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section 7.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_adamax()
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [1.]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        nu = jnp.maximum(b2 * s.nu, jnp.abs(g) + eps)
        u = over(mu, s.mu_weight)
        if is_never_zero(eps, nu.dtype):
            return u / nu, Slots(mu=mu, nu=nu)
        seen = nu != 0  # without an eps, elements without a gradient do not move
        return jnp.where(seen, u / jnp.where(seen, nu, 1), 0), Slots(mu=mu, nu=nu)

    return leafwise(ScaleByAdamState, zero_moments, update, per_step=moment_weights(b1, b2))


@optimizer(
    ADAM + ", section 7",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.002,
    ranges={"b2": FRACTION},
)
def adamax(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> GradientTransformation:
    """AdaMax: Adam with a decaying maximum in place of the root of an average of squares.

    `p - learning_rate * mu_hat / nu`, see `scale_by_adamax`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's default is 2e-3.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the maximum. Default: 0.999.
      eps: added to the magnitude. Default: 1e-8.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section 7.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adamax(2e-3)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.002]
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


@optimizer(
    ADAM + ", section 7; " + ADAMW,
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.002,
    ranges={"b2": FRACTION},
)
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """AdaMax with decoupled weight decay, which the learning rate multiplies.

    `p - learning_rate * (mu_hat / nu + weight_decay * p)`, see `scale_by_adamax`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the maximum. Default: 0.999.
      eps: added to the magnitude. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 1e-4.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section 7;
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adamaxw(2e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.002]
    """
    return chain(
        scale_by_adamax(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
