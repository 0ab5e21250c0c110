"""AdaBound and AMSBound: from Adam to SGD by bounds of the learning rates."""

from collections.abc import Callable

import jax.numpy as jnp

from gradtx._arguments import NOT_NEGATIVE
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, ratio, times
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, moment_weights, zero_moments
from gradtx.optimizers._amsgrad import ScaleByAmsgradState, zero_moments_and_max
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import step_number

ADABOUND = (
    "Luo et al., 'Adaptive Gradient Methods with Dynamic Bound of Learning Rate', arXiv:1902.09843"
)


def _bounds(
    b1: Scalar, b2: Scalar, final_ratio: Scalar, gamma: Scalar
) -> Callable[[Scalar], dict[str, Array]]:
    """Returns a function of the step count that returns the bounds, and the weights of moments."""
    weights = moment_weights(b1, b2)

    def per_step(step: Scalar) -> dict[str, Array]:
        way = times(gamma, step_number(step))  # from 0, adaptive, to infinity, SGD
        ends = {
            "lowest": times(final_ratio, way / (way + 1)),
            "highest": times(final_ratio, 1 + 1 / way),
        }
        return weights(step) | ends

    return per_step


def _bounded(mu: Array, nu: Array, s: Slots, eps: Scalar) -> Array:
    """Returns the momentum times learning rates of which each is within the bounds."""
    correction = (jnp.sqrt(s.nu_weight) / s.mu_weight).astype(nu.dtype)
    rates = ratio(jnp.broadcast_to(correction, nu.shape), nu, eps)
    return mu * jnp.clip(rates, s.lowest.astype(nu.dtype), s.highest.astype(nu.dtype))


@optimizer(
    ADABOUND,
    family="Adam",
    probe={"learning_rate": 0.05, "final_ratio": 2.0},
    usual_rate=0.001,
    ranges={"gamma": NOT_NEGATIVE},
)
def adabound(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    final_ratio: Scalar = 100.0,
    gamma: Scalar = 1e-3,
    eps: Scalar = 1e-8,
) -> GradientTransformation:
    """AdaBound: Adam whose learning rate for each element is bounded, and at last that of SGD.

    `mu` and `nu` are the averages of `adam`, `t` is 1 at the first step:
    `rate = sqrt(1-b2**t) / (1-b1**t) / (sqrt(nu) + eps);
    lowest = final_ratio * (1 - 1/(gamma*t+1)); highest = final_ratio * (1 + 1/(gamma*t));
    p - learning_rate * clip(rate, lowest, highest) * mu`. Both bounds approach `final_ratio`. It is
    for models that begin well with Adam but end better with SGD, such as convolutional networks.
    How fast one becomes the other depends on the number of steps: set `gamma` to about 1 divided by
    the number of steps after which SGD shall dominate. The bounds and the bias corrections are
    those of the authors' program. There are convex problems on which it takes arbitrarily long, in
    contrast to the paper's guarantee, and SGD with momentum can do as well (Savarese,
    arXiv:1908.04457).

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      final_ratio: the learning rate of SGD at the end, divided by `learning_rate`. Default: 100,
        which is the authors' `final_lr` of 0.1 for their learning rate of 1e-3.
      gamma: how fast the bounds approach each other, not negative; 0 for no bounds. Default: 1e-3.
      eps: added to the root. Default: 1e-8.

    Source: Luo et al., "Adaptive Gradient Methods with Dynamic Bound of Learning Rate",
    arXiv:1902.09843.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adabound(1e-3, gamma=1.0)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])  # 0.1 * (1-1/2) * 4/10
      [-0.02]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        return _bounded(mu, nu, s, eps), Slots(mu=mu, nu=nu)

    per_step = _bounds(b1, b2, final_ratio, gamma)
    return chain(
        leafwise(ScaleByAdamState, zero_moments, update, per_step=per_step),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(
    ADABOUND,
    family="Adam",
    probe={"learning_rate": 0.05, "final_ratio": 2.0},
    usual_rate=0.001,
    ranges={"gamma": NOT_NEGATIVE},
)
def amsbound(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    final_ratio: Scalar = 100.0,
    gamma: Scalar = 1e-3,
    eps: Scalar = 1e-8,
) -> GradientTransformation:
    """AMSBound: AdaBound with a non-decreasing second moment.

    `nu_max = max(nu_max, nu)` takes the place of `nu` in the rates of `adabound`, before the bias
    correction.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      final_ratio: the learning rate of SGD at the end, divided by `learning_rate`. Default: 100.
      gamma: how fast the bounds approach each other, not negative; 0 for no bounds. Default: 1e-3.
      eps: added to the root. Default: 1e-8.

    Source: Luo et al., "Adaptive Gradient Methods with Dynamic Bound of Learning Rate",
    arXiv:1902.09843.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.amsbound(1e-3, gamma=1.0)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.02]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        nu_max = jnp.maximum(s.nu_max, nu)
        return _bounded(mu, nu_max, s, eps), Slots(mu=mu, nu=nu, nu_max=nu_max)

    per_step = _bounds(b1, b2, final_ratio, gamma)
    return chain(
        leafwise(ScaleByAmsgradState, zero_moments_and_max, update, per_step=per_step),
        scale_by_learning_rate(learning_rate),
    )
