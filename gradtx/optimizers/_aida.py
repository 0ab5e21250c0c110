"""Aida."""

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import COUNT
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio, times
from gradtx.engine.rules import Slots
from gradtx.optimizers._adabelief import ScaleByBeliefState
from gradtx.optimizers._adam import moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.norms import norms


@optimizer(
    "Zhang, Niwa and Kleijn, 'A DNN Optimizer that Improves over AdaBelief by Suppression of the "
    "Adaptive Stepsize Range', arXiv:2203.13273",
    family="Adam",
    acts_on="leaf",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
    ranges={"projections": COUNT},
)
def aida(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    projections: int = 2,
) -> GradientTransformation:
    """Aida: AdaBelief whose step sizes differ less, by projections of gradient and momentum.

    `mu = b1*mu + (1-b1)*g`. Then `m, h = mu, g`, and `projections` times
    `m, h = <m, h> / |h|^2 * h, <m, h> / |m|^2 * m`, with products and norms over one leaf;
    `nu = b2*nu + (1-b2)*|h - m|^2 + eps_root;
    p - learning_rate * mu / (1-b1**t) / (sqrt(nu / (1-b2**t)) + eps)`, where `t` is 1 at the first
    step. With an even number of projections, `h - m` is `cos(mu, g)**projections * (g - mu)`: where
    the gradient turns from the momentum, deviations are forgotten, and `eps_root` decides. It is
    computed in that form. With 0 it would be `adabelief`. The equations are as given in
    pytorch_optimizer's program and its documentation.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added to `nu` at every step, where it accumulates to at most `eps_root / (1-b2)`.
        Default: 1e-8.
      projections: the number of mutual projections. Default: 2, as in the paper.

    Source: Zhang, Niwa and Kleijn, "A DNN Optimizer that Improves over AdaBelief by Suppression of
    the Adaptive Stepsize Range", arXiv:2203.13273.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.aida(1e-3)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.00111111]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        of_g, of_mu = (jnp.where(size > 0, size, 1) for size in norms(g, mu))
        unit_g, unit_mu = over(g, of_g), over(mu, of_mu)
        cosine = jnp.sum(jnp.real(jnp.conj(unit_g) * unit_mu))
        away = lax.sub(g, mu)
        if projections % 2:
            away = lax.sub(times(of_g, unit_mu), times(of_mu, unit_g))
        away = times(cosine**projections, away)
        nu = plus(ema(abs_sq(away), s.nu, b2), eps_root)
        return ratio(over(mu, s.mu_weight), over(nu, s.nu_weight), eps), Slots(mu=mu, nu=nu)

    return chain(
        leafwise(ScaleByBeliefState, zero_moments, update, per_step=moment_weights(b1, b2)),
        scale_by_learning_rate(learning_rate),
    )
