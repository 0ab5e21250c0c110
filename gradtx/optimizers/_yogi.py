"""Yogi."""

import jax.numpy as jnp

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio, times
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, moment_weights
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like


@piece
def scale_by_yogi(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    eps_root: Scalar = 0.0,
    initial_accumulator_value: Scalar = 1e-6,
) -> GradientTransformation:
    """Scales by Adam's rule with a second moment that changes additively.

    `mu = b1*mu + (1-b1)*g; nu = nu - (1-b2) * sign(nu - |g|^2) * |g|^2; mu_hat = mu / (1-b1**t);
    nu_hat = nu / (1-b2**t); mu_hat / (sqrt(nu_hat + eps_root) + eps)`, where `t` is 1 at the first
    step. However far `nu` is above `|g|^2`, it falls by `(1-b2)*|g|^2` only: large gradients are
    forgotten slowly. The bias corrections are those of Adam; the paper has none.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: one minus the rate at which `nu` changes. Default: 0.999.
      eps: added to the root. Default: 1e-3, as in the paper.
      eps_root: added under the root. Default: 0.
      initial_accumulator_value: the initial value of `nu`; `mu` starts at 0. Default: 1e-6.

    Source: Zaheer et al., "Adaptive Methods for Nonconvex Optimization", NeurIPS 31 (2018).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_yogi()
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [0.9997188]
    """

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), nu=real_full_like(p, initial_accumulator_value))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, square = ema(g, s.mu, b1), abs_sq(g)
        change = times(1 - b2, square)
        # Not a product with the sign, which would be 0 * infinity where both have overflowed.
        fallen = jnp.where(s.nu > square, s.nu - change, s.nu)
        nu = jnp.where(s.nu < square, s.nu + change, fallen)
        nu_hat = over(nu, s.nu_weight)
        return ratio(over(mu, s.mu_weight), plus(nu_hat, eps_root), eps), Slots(mu=mu, nu=nu)

    return leafwise(ScaleByAdamState, init, update, per_step=moment_weights(b1, b2))


@optimizer(
    "Zaheer et al., 'Adaptive Methods for Nonconvex Optimization', NeurIPS 31 (2018)",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.01,
)
def yogi(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-3
) -> GradientTransformation:
    """Yogi: Adam with additive changes of the second moment.

    `p - learning_rate * mu_hat / (sqrt(nu_hat) + eps)`, see `scale_by_yogi`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's is 1e-2.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: one minus the rate at which the second moment changes. Default: 0.999.
      eps: added to the root. Default: 1e-3, as in the paper.

    Source: Zaheer et al., "Adaptive Methods for Nonconvex Optimization", NeurIPS 31 (2018).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.yogi(1e-2)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.00999719]
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))
