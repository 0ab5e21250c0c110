"""AMSGrad."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._roles import Count, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.storing import store_as
from gradtx.tree.filling import real_full_like


@declared
class ScaleByAmsgradState(NamedTuple):
    """The state of `scale_by_amsgrad`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: moving average of squared gradients, real.
      nu_max: the largest `nu` so far, after bias correction unless `raw_maximum`, real.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot
    nu_max: UnsignedSlot


def zero_moments_and_max(p: Array) -> Slots:
    """Returns the two moments of one array, and the maximum of the second, before any step."""
    return Slots(**vars(zero_moments(p)), nu_max=real_full_like(p, 0))


@piece
def scale_by_amsgrad(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    raw_maximum: bool = False,
) -> GradientTransformation:
    """Scales by Adam's rule with the largest second moment so far.

    `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2)*|g|^2; nu_max = max(nu_max, nu_hat);
    mu_hat / (sqrt(nu_max + eps_root) + eps)`, where `mu_hat` and `nu_hat` are `mu` and `nu` with
    bias correction.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      bias_correction_mu: whether `mu_hat = mu / (1-b1**t)`, where `t` is 1 at the first step, or
        `mu`. Default: True.
      bias_correction_nu: whether `nu_hat = nu / (1-b2**t)`, or `nu`. Default: True. The paper
        corrects neither.
      raw_maximum: whether to take the maximum of `nu` and correct its bias afterwards,
        `nu_max = max(nu_max, nu); mu_hat / (sqrt(nu_max / (1-b2**t) + eps_root) + eps)`, as PyTorch
        does. Default: False.

    Source: Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv:1904.09237.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_amsgrad()
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [1.]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        mu_hat = over(mu, s.mu_weight) if bias_correction_mu else mu
        corrected_first = bias_correction_nu and not raw_maximum
        nu_max = jnp.maximum(s.nu_max, over(nu, s.nu_weight) if corrected_first else nu)
        nu_hat = over(nu_max, s.nu_weight) if bias_correction_nu and raw_maximum else nu_max
        u = ratio(mu_hat, plus(nu_hat, eps_root), eps)
        return u, Slots(mu=mu, nu=nu, nu_max=nu_max)

    tx = leafwise(
        ScaleByAmsgradState, zero_moments_and_max, update, per_step=moment_weights(b1, b2)
    )
    return store_as(tx, mu=mu_dtype)


@optimizer(
    "Reddi, Kale and Kumar, 'On the Convergence of Adam and Beyond', arXiv:1904.09237",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    raw_maximum: bool = False,
) -> GradientTransformation:
    """AMSGrad: Adam with a non-decreasing second moment.

    `p - learning_rate * mu_hat / (sqrt(nu_max + eps_root) + eps)`, see `scale_by_amsgrad`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      bias_correction_mu: whether the average of gradients is corrected. Default: True.
      bias_correction_nu: whether the average of squares is corrected. Default: True.
      raw_maximum: whether the bias is corrected after the maximum, as in PyTorch, see
        `scale_by_amsgrad`. Default: False.

    Source: Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv:1904.09237.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.amsgrad(1e-3)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.001]
    """
    return chain(
        scale_by_amsgrad(
            b1,
            b2,
            eps,
            eps_root,
            mu_dtype,
            bias_correction_mu,
            bias_correction_nu,
            raw_maximum=raw_maximum,
        ),
        scale_by_learning_rate(learning_rate),
    )
