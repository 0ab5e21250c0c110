"""Adam and its closest variants: AdamW, NAdam, NAdamW, and Adam without bias correction."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx._arguments import POSITIVE
from gradtx._roles import Count, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.storing import store_as
from gradtx.tree.filling import real_full_like, zeros_like
from gradtx.tree.moments import gathered_weight, step_number

ADAM = "Kingma and Ba, 'Adam: A Method for Stochastic Optimization', arXiv:1412.6980"
ADAMW = "Loshchilov and Hutter, 'Decoupled Weight Decay Regularization', arXiv:1711.05101"
NADAM = "Dozat, 'Incorporating Nesterov Momentum into Adam' (ICLR workshop 2016)"


@declared
class ScaleByAdamState(NamedTuple):
    """The state of `scale_by_adam`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: moving average of squared gradients, real.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot


def zero_moments(p: Array) -> Slots:
    """Returns the two moments of one array before any step."""
    return Slots(mu=zeros_like(p), nu=real_full_like(p, 0))


def moment_weights(
    b1: Scalar, b2: Scalar, look_ahead: bool = False
) -> Callable[[Scalar], dict[str, Array]]:
    """Returns a function of the step count that returns the sums of the weights in both moments.

    `mu_weight = 1 - b1**t` and `nu_weight = 1 - b2**t`, where `t = step + 1`.

    Args:
      b1: the decay rate of the average of gradients.
      b2: the decay rate of the average of squares.
      look_ahead: whether to return `next_mu_weight = 1 - b1**(t+1)` as well. Default: False.
    """

    def per_step(step: Scalar) -> dict[str, Array]:
        t = step_number(step)
        weights = {"mu_weight": gathered_weight(b1, t), "nu_weight": gathered_weight(b2, t)}
        return weights | ({"next_mu_weight": gathered_weight(b1, t + 1)} if look_ahead else {})

    return per_step


@piece
def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    ahead_correction: bool = True,
) -> GradientTransformation:
    """Divides an average of gradients by the root of an average of their squares.

    `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2)*|g|^2; mu_hat = mu / (1-b1**t);
    nu_hat = nu / (1-b2**t); mu_hat / (sqrt(nu_hat + eps_root) + eps)`, where `t` is 1 at the first
    step. With Nesterov momentum, `mu_hat = b1 * mu / (1-b1**(t+1)) + (1-b1) * g / (1-b1**t)`; with
    `ahead_correction=False`, `mu_hat = (b1*mu + (1-b1)*g) / (1-b1**t)`.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision; `nu` always has this default.
      nesterov: whether to use Nesterov momentum. Default: False.
      ahead_correction: whether the average in Nesterov momentum has the bias correction of the next
        step, as in the paper, or that of this step, as in timm's NAdamW. Default: True.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980; with
    Nesterov momentum: Dozat, "Incorporating Nesterov Momentum into Adam" (ICLR workshop 2016).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_adam()
      >>> print(tx.update(jnp.array([4.0, -0.1]), tx.init(jnp.zeros(2)))[0])
      [ 1. -1.]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        mu_hat, nu_hat = over(mu, s.mu_weight), over(nu, s.nu_weight)
        if nesterov:
            ahead = over(mu, s.next_mu_weight) if ahead_correction else mu_hat
            mu_hat = ema(over(g, s.mu_weight), ahead, b1)
        return ratio(mu_hat, plus(nu_hat, eps_root), eps), Slots(mu=mu, nu=nu)

    weights = moment_weights(b1, b2, look_ahead=nesterov and ahead_correction)
    tx = leafwise(ScaleByAdamState, zero_moments, update, per_step=weights)
    return store_as(tx, mu=mu_dtype)


@piece
def scale_by_uncorrected_adam(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> GradientTransformation:
    """Scales by Adam's rule without bias correction.

    `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2)*|g|^2; mu / (sqrt(nu) + eps)`. With `t` from 1, step
    `t` is `(1-b1**t) / sqrt(1-b2**t)` times as long as Adam's: with the defaults 3.2 times at the
    first step and 6.6 times at the 12th, the maximum.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section
    6.4, which uses it to show the effect of bias correction.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_uncorrected_adam()
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [3.162277]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        return ratio(mu, nu, eps), Slots(mu=mu, nu=nu)

    return leafwise(ScaleByAdamState, zero_moments, update)


@functools.partial(piece, ranges={"momentum_decay": POSITIVE})
def _scale_by_scheduled_nadam(
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar,
    mu_dtype: DTypeLike | None,
    momentum_decay: Scalar,
) -> GradientTransformation:
    """Returns `scale_by_adam` with Nesterov momentum whose decay rate grows from `b1 / 2` to `b1`.

    `rate(t) = b1 * (1 - 0.96**(t*momentum_decay) / 2)` takes the place of `b1` in `mu_hat`, and
    `weight(t) = 1 - rate(1) * ... * rate(t)` that of `1 - b1**t`.
    """

    def per_step(step: Scalar) -> dict[str, Array]:
        t = step_number(step)
        speed = -math.log(0.96) * momentum_decay

        def rate(t: Array) -> Array:
            return times(b1, 1 - jnp.exp(-speed * t) / 2)

        def weight(t: Array) -> Array:
            # The product of `1 - q**i / 2` for i up to t, with q = exp(-speed), by the series of
            # the logarithms: of the k-th powers of q**i / 2, which are geometric series over i.
            k = np.arange(1.0, 54.0)  # 2**-53 is the rounding of float64
            sums = jnp.exp(-speed * k) * jnp.expm1(-speed * k * t) / jnp.expm1(-speed * k)
            gathered = gathered_weight(b1, t)
            return gathered - (1 - gathered) * jnp.expm1(-jnp.sum(sums / (k * 2**k)))

        return {
            "of_g": (1 - rate(t)) / weight(t),
            "of_mu": rate(t + 1) / weight(t + 1),
            "nu_weight": gathered_weight(b2, t),
        }

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        mu_hat = times(s.of_mu, mu) + times(s.of_g, g)
        u = ratio(mu_hat, plus(over(nu, s.nu_weight), eps_root), eps)
        return u, Slots(mu=mu, nu=nu)

    return store_as(
        leafwise(ScaleByAdamState, zero_moments, update, per_step=per_step), mu=mu_dtype
    )


def _check_nesterov(name: str, nesterov: bool) -> None:
    """Raises an error if there is a schedule of Nesterov momentum, and no Nesterov momentum."""
    if not nesterov:
        raise ValueError(
            f"{name}: momentum_decay was given with nesterov=False, but it is the schedule of "
            "Nesterov momentum; leave out one of the two"
        )


@optimizer(ADAM, family="Adam", probe={"learning_rate": 0.05}, usual_rate=0.001)
def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam: bias-corrected momentum, divided by the root of the bias-corrected second moment.

    `p - learning_rate * mu_hat / (sqrt(nu_hat + eps_root) + eps)`, see `scale_by_adam`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's is 1e-3.
      b1: the decay rate of the average of gradients. Default: 0.9, as in the paper.
      b2: the decay rate of the average of squares. Default: 0.999, as in the paper.
      eps: added to the root. Default: 1e-8, as in the paper.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      nesterov: whether to use Nesterov momentum, see `nadam`. Default: False.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adam(1e-3)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.001]
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(ADAM + ", section 6.4", family="Adam", probe={"learning_rate": 0.05}, usual_rate=0.001)
def uncorrected_adam(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> GradientTransformation:
    """Adam without bias correction, to show what the correction does.

    `p - learning_rate * mu / (sqrt(nu) + eps)`, see `scale_by_uncorrected_adam`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section
    6.4.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.uncorrected_adam(1e-3)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.00316228]
    """
    return chain(scale_by_uncorrected_adam(b1, b2, eps), scale_by_learning_rate(learning_rate))


@optimizer(ADAMW, family="Adam", probe={"learning_rate": 0.05}, usual_rate=0.001)
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam with decoupled weight decay, which the learning rate multiplies.

    `p - learning_rate * (mu_hat / (sqrt(nu_hat + eps_root) + eps) + weight_decay * p)`, see
    `scale_by_adam`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 1e-4; PyTorch's is 1e-2.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      nesterov: whether to use Nesterov momentum, see `nadamw`. Default: False.

    Raises:
      ValueError: `update` was called without params.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adamw(1e-3, weight_decay=0.1)
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.0012]
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(
    NADAM,
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
    ranges={"momentum_decay": POSITIVE},
)
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: Scalar | None = None,
) -> GradientTransformation:
    """NAdam: Adam with Nesterov momentum, which is `adam(..., nesterov=True)`.

    `mu_hat = b1 * mu / (1-b1**(t+1)) + (1-b1) * g / (1-b1**t)` takes the place of Adam's `mu_hat`.
    With `momentum_decay`, `rate(t) = b1 * (1 - 0.96**(t*momentum_decay) / 2)` and
    `weight(t) = 1 - rate(1) * ... * rate(t)` give
    `mu_hat = rate(t+1) * mu / weight(t+1) + (1-rate(t)) * g / weight(t)`, as in the paper.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      nesterov: whether to use Nesterov momentum. Default: True.
      momentum_decay: how fast the decay rate in `mu_hat` grows from `b1 / 2` to `b1`, positive; the
        paper's and PyTorch's is 0.004, Keras's is 1. Default: `None`, for the constant rate `b1`.

    Raises:
      ValueError: `momentum_decay` was given with `nesterov=False`.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam" (ICLR workshop 2016).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.nadam(1e-3)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.00147368]
    """
    if momentum_decay is None:
        return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    _check_nesterov("nadam", nesterov)
    return chain(
        _scale_by_scheduled_nadam(b1, b2, eps, eps_root, mu_dtype, momentum_decay),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(
    NADAM + "; " + ADAMW,
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
    ranges={"momentum_decay": POSITIVE},
)
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: Scalar | None = None,
) -> GradientTransformation:
    """NAdam with decoupled weight decay, which is `adamw(..., nesterov=True)`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 1e-4.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      nesterov: whether to use Nesterov momentum. Default: True.
      momentum_decay: how fast the decay rate in `mu_hat` grows from `b1 / 2` to `b1`, see `nadam`.
        Default: `None`, for the constant rate `b1`.

    Raises:
      ValueError: `momentum_decay` was given with `nesterov=False`, or `update` was called without
        params.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam" (ICLR workshop 2016); Loshchilov and
    Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.nadamw(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.00147368]
    """
    if momentum_decay is None:
        return adamw(
            learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=nesterov
        )
    _check_nesterov("nadamw", nesterov)
    return chain(
        _scale_by_scheduled_nadam(b1, b2, eps, eps_root, mu_dtype, momentum_decay),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
