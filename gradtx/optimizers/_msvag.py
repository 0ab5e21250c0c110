"""M-SVAG."""

from collections.abc import Callable

import jax.numpy as jnp

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, root, times
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight, step_number


def _weights(beta: Scalar) -> Callable[[Scalar], dict[str, Array]]:
    def per_step(step: Scalar) -> dict[str, Array]:
        t = step_number(step)
        weight = gathered_weight(beta, t)
        # rho / (1-rho), and 0 at the first step, before which there is no variance
        beta_less = times(beta, gathered_weight(beta, t - 1))  # beta - beta**t
        defined = beta_less > 0
        share = times(1 - beta, 2 - weight) / jnp.where(defined, 2 * beta_less, 1)
        return {"weight": weight, "share": jnp.where(defined, share, 0)}

    return per_step


@optimizer(
    "Balles and Hennig, 'Dissecting Adam: The Sign, Magnitude and Variance of Stochastic "
    "Gradients', arXiv:1705.07774",
    family="momentum",
    probe={"learning_rate": 0.1},
    usual_rate=0.1,
)
def msvag(learning_rate: ScalarOrSchedule, beta: Scalar = 0.9) -> GradientTransformation:
    """M-SVAG: momentum that is damped where gradients have a large relative variance.

    `mu` and `nu` are averages of `g` and `|g|^2` with the decay rate `beta`, with bias correction;
    `rho = (1-beta) * (1+beta**t) / ((1+beta) * (1-beta**t))`, where `t` is 1 at the first step;
    `s = (nu - |mu|^2) / (1-rho)` estimates the variance of a gradient, and `rho*s` that of `mu`;
    `p - learning_rate * mu * |mu|^2 / (|mu|^2 + rho*s)`. It is the part of Adam that adapts to the
    variance, without the sign: learning rates are those of SGD with momentum, without the factor
    `1/(1-beta)`. At the first step the variance is 0.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      beta: the decay rate of both averages. Default: 0.9.

    Source: Balles and Hennig, "Dissecting Adam: The Sign, Magnitude and Variance of Stochastic
    Gradients", arXiv:1705.07774.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.msvag(0.1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.4]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, beta), ema(abs_sq(g), s.nu, beta)
        m, v = over(mu, s.weight), over(nu, s.weight)
        # In units of the root of v, because squares overflow and underflow.
        unit = m / root(v)
        square = abs_sq(unit)
        noise = times(s.share, jnp.maximum(1 - square, 0))
        total = square + noise
        return m * square / jnp.where(total > 0, total, 1), Slots(mu=mu, nu=nu)

    return chain(
        leafwise(ScaleByAdamState, zero_moments, update, per_step=_weights(beta)),
        scale_by_learning_rate(learning_rate),
    )
