"""Gradients whose norms follow averages of the norms so far."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._roles import Count, UnsignedStatistic, declared
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import ema, over, ratio, times
from gradtx.engine.rules import Slots
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import norms


@declared
class AdaptiveGradientNormState(NamedTuple):
    """The state of `adaptive_gradient_norm`.

    Attributes:
      count: the number of steps taken.
      mu: for each leaf, the moving average of its norm.
      nu: for each leaf, the moving average of its squared norm.
    """

    count: Count
    mu: UnsignedStatistic
    nu: UnsignedStatistic


@piece
def adaptive_gradient_norm(
    b1: Scalar = 0.7, b2: Scalar = 0.9, eps: Scalar = 1e-8
) -> GradientTransformation:
    """Scales each leaf's gradient to a norm that Adam's rule computes from the norms so far.

    `n = norm(g); mu = b1*mu + (1-b1)*n; nu = b2*nu + (1-b2)*n^2;
    g / n * (mu / (1-b1**t)) / (sqrt(nu / (1-b2**t)) + eps)` for each leaf: AdaGN of Stable-SPAM.
    The new norm is about 1, and less after a sudden growth. A zero gradient stays zero. A leaf
    whose squared norm is not finite is returned unchanged, and does not enter the averages. It
    belongs before an optimizer.

    Args:
      b1: the decay rate of the average of norms. Default: 0.7.
      b2: the decay rate of the average of squared norms. Default: 0.9.
      eps: added to the root. Default: 1e-8.

    Source: Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
    arXiv:2502.17055.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adaptive_gradient_norm()
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0])
      [0.6 0.8]
    """

    def init(p: Array) -> Slots:
        zero = real_full_like(jnp.zeros((), p.dtype), 0)
        return Slots(mu=zero, nu=zero)

    def weights(step: Array) -> dict[str, Array]:
        t = step_number(step)
        return {"mu_weight": gathered_weight(b1, t), "nu_weight": gathered_weight(b2, t)}

    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        (norm,) = norms(g)
        finite = jnp.isfinite(jnp.square(norm))
        mu = jnp.where(finite, ema(norm, s.mu, b1), s.mu)
        nu = jnp.where(finite, ema(jnp.square(norm), s.nu, b2), s.nu)
        size = ratio(over(mu, s.mu_weight), over(nu, s.nu_weight), eps)
        new = times(size, over(g, jnp.where(norm > 0, norm, 1)))
        return jnp.where(finite, new, g), Slots(mu=mu, nu=nu)

    return leafwise(
        AdaptiveGradientNormState, init, update, per_step=weights, name="adaptive_gradient_norm"
    )
