"""StableAdamW."""

import jax.numpy as jnp

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, root, times, value_of
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.norms import root_mean_square


@optimizer(
    "Wortsman et al., 'Stable and low-precision training for large-scale vision-language models', "
    "arXiv:2304.13013",
    family="Adam",
    acts_on="leaf",
    probe={"learning_rate": 0.05},
    usual_rate=0.002,
)
def stable_adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.2,
) -> GradientTransformation:
    """StableAdamW: AdamW with shorter steps where gradients exceed their second moment.

    `mu` and `nu` are Adam's moments, and `mu_hat`, `nu_hat` the bias-corrected ones;
    `u = mu_hat / (sqrt(nu_hat) + eps) + weight_decay * p`;
    `p - learning_rate / max(1, sqrt(mean(|g|^2 / max(nu_hat, eps^2)))) * u`, with the mean over one
    leaf: the update clipping of Adafactor. It is for large models whose loss spikes because the
    second moment is out of date, in place of clipping by the norm. `stable_rms_clip` is the same
    around any optimizer. The step-dependent decay rates of the paper's Algorithm 2 are
    equivalent to bias correction.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 2e-3.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.99.
      eps: added to the root, and its lower bound in the mean. Default: 1e-6.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule. The learning
        rate and the clipping multiply it. Default: 0.2. All leaves decay; for biases without decay
        use `gradtx.partition`.

    Raises:
      ValueError: `update` was called without params.

    Source: Wortsman et al., "Stable and low-precision training for large-scale vision-language
    models", arXiv:2304.13013.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.stable_adamw(1.0, b1=0.0, b2=0.5, weight_decay=0.0)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for g in (1.0, 7.0):
      ...     updates, state = tx.update(jnp.array([g]), state, params)
      ...     print(updates.round(3))  # Adam's second step is -1.219
      [-1.]
      [-1.]
    """

    def update(g: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        mean_square = over(nu, s.nu_weight)
        u = ratio(over(mu, s.mu_weight), mean_square, eps) + times(s.weight_decay, p)
        excess = root_mean_square(g / jnp.maximum(root(mean_square), value_of(eps)))
        u = over(u, jnp.where(excess > 1, excess, 1))  # also if it is NaN
        return u, Slots(mu=mu, nu=nu)

    return chain(
        leafwise(
            ScaleByAdamState, zero_moments, update, params=True,
            scalars={"weight_decay": weight_decay}, per_step=moment_weights(b1, b2),
        ),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
