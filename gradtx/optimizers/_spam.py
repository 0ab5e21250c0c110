"""Adam for gradients with spikes: SPAM and Stable-SPAM."""

from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, ratio
from gradtx.engine.pipeline import named
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import (
    ScaleByAdamState,
    moment_weights,
    scale_by_adam,
    zero_moments,
)
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.gradient_norms import adaptive_gradient_norm
from gradtx.transforms.resetting import momentum_reset
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.spikes import adaptive_spike_clip, without_spikes

SPAM = (
    "Huang et al., 'SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training', "
    "arXiv:2501.06842"
)
STABLE_SPAM = (
    "Huang et al., 'Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam', "
    "arXiv:2502.17055"
)


@piece
def _scale_by_adam_without_spikes(
    b1: Scalar, b2: Scalar, eps: Scalar, threshold: Scalar
) -> GradientTransformation:
    """Returns `scale_by_adam` of gradients that its own second moment clips."""

    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        g = without_spikes(g, s.nu, threshold)
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        u = ratio(over(mu, s.mu_weight), over(nu, s.nu_weight), eps)
        return u, Slots(mu=mu, nu=nu)

    return leafwise(ScaleByAdamState, zero_moments, update, per_step=moment_weights(b1, b2))


@optimizer(SPAM, family="Adam", probe={"learning_rate": 0.05, "warmup": 20}, usual_rate=0.001)
def spam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    threshold: Scalar = 5000.0,
    every: int = 500,
    warmup: int = 150,
) -> GradientTransformation:
    """SPAM: Adam with clipped spikes of the gradient, whose moments are reset periodically.

    `g = sign(g) * min(|g|, sqrt(threshold * nu))` where `nu > 0`, and then Adam with the clipped
    gradient. After every `every` steps, the moments and their counts start again at 0, and the next
    `warmup` steps are multiplied by `(1 - cos(pi * i / warmup)) / 2`, with `i` from 1. It is for
    long runs of large models, in which single elements of gradients become hundreds of times larger
    for some steps, and stay in the moments of Adam. The pieces are `spike_aware_clip` and
    `momentum_reset`; the paper's sparse momentum is not there.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-6.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      threshold: the largest ratio of a squared gradient to its second moment. Default: 5000.
      every: the number of steps between resets. Default: 500.
      warmup: the number of steps after a reset until updates have their full size. Default: 150.

    Raises:
      ValueError: `update` was called without params.

    Source: Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training",
    arXiv:2501.06842.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.spam(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.001]
    """

    adam = _scale_by_adam_without_spikes(b1, b2, eps, threshold)
    return chain(
        named(momentum_reset(named(adam, "spam"), every, warmup), "spam"),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(
    STABLE_SPAM, family="Adam", acts_on="leaf", probe={"learning_rate": 0.05}, usual_rate=0.001
)
def stable_spam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    gamma1: Scalar = 0.7,
    gamma2: Scalar = 0.9,
    gamma3: Scalar = 0.999,
    every: int = 1000,
) -> GradientTransformation:
    """Stable-SPAM: Adam of gradients whose spikes and norms follow averages, with resets.

    It is `chain(adaptive_spike_clip(gamma3), adaptive_gradient_norm(gamma1, gamma2, eps),
    momentum_reset(scale_by_adam(b1, b2, eps), every, warmup=0), add_decayed_weights(weight_decay),
    scale_by_learning_rate(learning_rate))`; the equations are those of the pieces. It is for
    training in 4 or 8 bits, and has no threshold to choose, unlike `spam`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the roots of Adam and of the average of squared norms. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      gamma1: the decay rate of the average of norms. Default: 0.7.
      gamma2: the decay rate of the average of squared norms. Default: 0.9.
      gamma3: the decay rate of the average of largest magnitudes. Default: 0.999.
      every: the number of steps between resets of Adam's moments. Default: 1000.

    Raises:
      ValueError: `update` was called without params.

    Source: Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
    arXiv:2502.17055.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.stable_spam(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.001]
    """
    adam = named(scale_by_adam(b1, b2, eps), "stable_spam")
    return chain(
        adaptive_spike_clip(gamma3),
        adaptive_gradient_norm(gamma1, gamma2, eps),
        named(momentum_reset(adam, every, warmup=0), "stable_spam"),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
