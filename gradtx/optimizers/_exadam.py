"""EXAdam."""

import jax.numpy as jnp
from jax import lax

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times, value_of
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@optimizer(
    "Adly, 'EXAdam: The Power of Adaptive Cross-Moments', arXiv:2412.20302",
    family="Adam",
    probe={"learning_rate": 0.02},
    usual_rate=1e-3,
)
def exadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """EXAdam: Adam with the gradient added to momentum, and moments that correct each other.

    `mu` and `nu` are the averages of `adam`, `t` is 1 at the first step:
    `d1 = 1 + b2**t * nu / (nu + eps); d2 = 1 + b1**t * |mu|^2 / (|mu|^2 + eps);
    u = d1 * (mu + g) / (1-b1**t) / (sqrt(d2 * nu / (1-b2**t)) + eps);
    p - learning_rate * (u + weight_decay*p)`. The gradient itself lets it react at once. Both
    factors fall from about 2 to 1. As `g` is divided by `1-b1**t` too, steps along constant
    gradients are 16 times as long as Adam's at first, 4 times at the 10th, and twice at last:
    choose a warm-up, or smaller rates. The equations are those of the author's program. In the
    first version of the paper, the rate is multiplied by `log(sqrt(2 * (t+1)))`, which grows
    without bound.

    Args:
      learning_rate: a number, a scalar array or a schedule; the author's is 1e-3.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root, and to both moments in `d1` and `d2`. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Adly, "EXAdam: The Power of Adaptive Cross-Moments", arXiv:2412.20302.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.exadam(0.1, b1=0.0, b2=0.0)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])  # (4 + 4) / 4
      [-0.2]
    """

    def share(x: Array) -> Array:
        """Returns `x / (x + eps)`, also for squares that have overflowed, and 0 for 0."""
        positive = x > 0
        return jnp.where(positive, 1 / (1 + value_of(eps) / jnp.where(positive, x, 1)), 0)

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        d1 = 1 + times(1 - s.nu_weight, share(nu))
        d2 = 1 + times(1 - s.mu_weight, share(abs_sq(mu)))
        ahead = over(lax.add(mu, g), s.mu_weight)
        return ratio(d1 * ahead, d2 * over(nu, s.nu_weight), eps), Slots(mu=mu, nu=nu)

    return chain(
        leafwise(ScaleByAdamState, zero_moments, update, per_step=moment_weights(b1, b2)),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
