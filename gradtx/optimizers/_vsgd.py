"""VSGD."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import NOT_NEGATIVE, POSITIVE
from gradtx._roles import Count, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, plus, ratio, times, value_of
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import step_number


@declared_as("vsgd")
class VSGDState(NamedTuple):
    """The state of `vsgd`.

    Attributes:
      count: the number of steps taken.
      mu: the estimate of the true gradient.
      drift: the estimated square of its changes, up to a factor, real.
      noise: the estimated square of the distances of gradients from it, up to a factor, real.
    """

    count: Count
    mu: Slot
    drift: UnsignedSlot
    noise: UnsignedSlot


@optimizer(
    "Chen et al., 'Variational Stochastic Gradient Descent for Deep Neural Networks', "
    "arXiv:2404.06549",
    family="Adam",
    probe={"learning_rate": 0.1},
    usual_rate=0.01,
    ranges={
        "noise_ratio": POSITIVE,
        "strength": POSITIVE,
        "tau1": NOT_NEGATIVE,
        "tau2": NOT_NEGATIVE,
    },
)
def vsgd(
    learning_rate: ScalarOrSchedule,
    noise_ratio: Scalar = 30.0,
    strength: Scalar = 1e-8,
    tau1: Scalar = 0.81,
    tau2: Scalar = 0.9,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """VSGD: normalized steps along an estimate of the gradient that weighs drift and noise.

    The true gradient drifts, and each `g` is a noisy observation of it. With
    `a = 1.0001 + 2*strength; q = drift / a; n = noise / a`, the estimate and its variance are
    `mu = (n*mu_last + q*g) / (n+q); var = n*q / (n+q)`. Then
    `drift = drift + t**-tau1 * (2*strength + var + |mu - mu_last|^2 - drift);
    noise = noise + t**-tau2 * (2*noise_ratio*strength + var + |g - mu|^2 - noise);
    p - learning_rate * (mu / (sqrt(|mu|^2 + var) + eps) + weight_decay*p)`. `t` is 1 at the first
    step, at which `q = 2*strength / (a-1)` and `n = noise_ratio * q`. The weight of a gradient thus
    follows from its estimated noise, where Adam has a constant decay rate. The rates of change of
    both estimates fall with the number of steps, so that it adapts less and less. It needs three
    slots. The equations are as given in pytorch_optimizer's program.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 0.1.
      noise_ratio: the prior ratio of noise to drift. Default: 30.
      strength: the strength of the prior, positive. Default: 1e-8.
      tau1: how fast the estimate of the drift settles. Default: 0.81.
      tau2: how fast the estimate of the noise settles. Default: 0.9.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Chen et al., "Variational Stochastic Gradient Descent for Deep Neural Networks",
    arXiv:2404.06549.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.vsgd(0.1)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0].round(3))
      [-0.099]
    """

    def per_step(step: Scalar) -> dict[str, Array]:
        t = step_number(step)
        return {"to_drift": t ** value_of(-tau1), "to_noise": t ** value_of(-tau2)}

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), drift=real_full_like(p, 0), noise=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        own, a = 2 * strength, 1.0001 + 2 * strength
        prior = own / (1e-4 + own)
        # Both are never below their least values, except if they are stored in few bits.
        held = jnp.maximum(s.drift, own), jnp.maximum(s.noise, value_of(noise_ratio * own))
        q = jnp.where(step == 0, value_of(prior), held[0] / value_of(a))
        n = jnp.where(step == 0, value_of(noise_ratio * prior), held[1] / value_of(a))
        weight = q / (n + q)
        mu = lax.add(s.mu, weight * lax.sub(g, s.mu))
        variance = weight * n
        largest = jnp.finfo(variance.dtype).max / 4  # the sum of both must be finite
        drift = plus(variance + jnp.minimum(abs_sq(lax.sub(mu, s.mu)), largest), own)
        noise = plus(variance + jnp.minimum(abs_sq(lax.sub(g, mu)), largest), noise_ratio * own)
        u = ratio(mu, abs_sq(mu) + variance, eps)
        drift = s.drift + times(s.to_drift, drift - s.drift)
        noise = s.noise + times(s.to_noise, noise - s.noise)
        return u, Slots(mu=mu, drift=drift, noise=noise)

    return chain(
        leafwise(VSGDState, init, update, per_step=per_step),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
