"""RMSProp, with and without centering."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._roles import KEPT, Count, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import gathered_weight, step_number


@declared
class ScaleByRmsState(NamedTuple):
    """The state of `scale_by_rms`.

    Attributes:
      nu: moving average of squared gradients, real.
      count: the number of steps taken; may be omitted without bias correction, as in optax.
    """

    nu: UnsignedSlot
    count: Count = KEPT


@declared
class ScaleByRStdDevState(NamedTuple):
    """The state of `scale_by_stddev`.

    Attributes:
      mu: moving average of gradients.
      nu: moving average of squared gradients, real.
      count: the number of steps taken; may be omitted without bias correction, as in optax.
    """

    mu: Slot
    nu: UnsignedSlot
    count: Count = KEPT


def divided(g: Array, nu: Array, eps: Scalar, eps_in_sqrt: bool) -> Array:
    """Returns `g / sqrt(nu + eps)`, or `g / (sqrt(nu) + eps)`."""
    return ratio(g, plus(nu, eps), 0.0) if eps_in_sqrt else ratio(g, nu, eps)


def _weight(decay: Scalar, wanted: bool) -> Callable[[Scalar], dict[str, Array]] | None:
    """Returns the function for bias correction, if that is wanted."""
    return (lambda step: {"weight": gathered_weight(decay, step_number(step))}) if wanted else None


@piece
def scale_by_rms(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Divides by the root of a moving average of squared gradients.

    `nu = decay*nu + (1-decay)*|g|^2; g / sqrt(nu + eps)`, or `g / (sqrt(nu) + eps)`.

    Args:
      decay: the decay rate of the average. Default: 0.9.
      eps: added under the root, or to it, see `eps_in_sqrt`. Default: 1e-8.
      initial_scale: the initial value of the average. Default: 0.
      eps_in_sqrt: whether `eps` is added under the root, or to it. Default: under it.
      bias_correction: whether `nu` is divided by `1 - decay**t`. Default: False.

    Source: Tieleman and Hinton, "Lecture 6.5 - RMSProp" (COURSERA, 2012).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_rms(bias_correction=True)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [1.]
    """

    def init(p: Array) -> Slots:
        return Slots(nu=real_full_like(p, initial_scale))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        nu = ema(abs_sq(g), s.nu, decay)
        nu_hat = over(nu, s.weight) if bias_correction else nu
        return divided(g, nu_hat, eps, eps_in_sqrt), Slots(nu=nu)

    return leafwise(ScaleByRmsState, init, update, per_step=_weight(decay, bias_correction))


@piece
def scale_by_stddev(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Divides by a moving estimate of the gradient's standard deviation.

    `mu = decay*mu + (1-decay)*g; nu = decay*nu + (1-decay)*|g|^2; g / sqrt(nu - |mu|^2 + eps)`, or
    `g / (sqrt(nu - |mu|^2) + eps)`. A variance that rounding made negative counts as 0.

    Args:
      decay: the decay rate of both averages. Default: 0.9.
      eps: added under the root, or to it, see `eps_in_sqrt`. Default: 1e-8.
      initial_scale: the initial value of `nu`. Default: 0.
      eps_in_sqrt: whether `eps` is added under the root, or to it. Default: under it.
      bias_correction: whether both averages are divided by `1 - decay**t`. Default: False. The
        variance is then 0 at the first step, which makes that step as large as `eps` allows.

    Source: Graves, "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_stddev(decay=0.5)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [2.]
    """

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), nu=real_full_like(p, initial_scale))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, decay), ema(abs_sq(g), s.nu, decay)
        mu_hat, nu_hat = mu, nu
        if bias_correction:
            mu_hat, nu_hat = over(mu, s.weight), over(nu, s.weight)
        variance = jnp.maximum(nu_hat - abs_sq(mu_hat), 0)
        return divided(g, variance, eps, eps_in_sqrt), Slots(mu=mu, nu=nu)

    return leafwise(ScaleByRStdDevState, init, update, per_step=_weight(decay, bias_correction))


@optimizer(
    "Tieleman and Hinton, 'Lecture 6.5 - RMSProp' (COURSERA, 2012); centered: Graves, "
    "'Generating Sequences With Recurrent Neural Networks', arXiv:1308.0850",
    family="Adam",
    probe={"learning_rate": 0.01},
    usual_rate=0.001,
)
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformation:
    """RMSProp: each element divided by the root of a moving average of squared gradients.

    `nu = decay*nu + (1-decay)*|g|^2; u = learning_rate * g / sqrt(nu + eps)`, with `nu - |mu|^2` in
    place of `nu` if `centered`; see `scale_by_rms` and `scale_by_stddev`. Then `p - u`, or with
    momentum `v = momentum*v + u; p - v`, in which the learning rate multiplies gradients before
    they enter the velocity.

    Args:
      learning_rate: a number, a scalar array or a schedule; 1e-3 is usual.
      decay: the decay rate of the averages. Default: 0.9, as in the source; PyTorch's is 0.99.
      eps: added under the root, or to it, see `eps_in_sqrt`. Default: 1e-8, as in PyTorch.
      initial_scale: the initial value of `nu`. Default: 0.
      eps_in_sqrt: whether `eps` is added under the root, or to it. Default: under it; PyTorch
        adds it to the root.
      centered: whether to divide by the standard deviation of gradients instead. Default: False.
      momentum: the momentum coefficient, in (-1, 1]. Default: `None`, no momentum.
      nesterov: whether to use Nesterov momentum. Default: False.
      bias_correction: whether to apply bias correction to the averages. Default: False.

    Source: Tieleman and Hinton, "Lecture 6.5 - RMSProp" (COURSERA, 2012); centered: Graves,
    "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.rmsprop(1e-3, bias_correction=True)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.001]
    """
    by = scale_by_stddev if centered else scale_by_rms
    return chain(
        by(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_learning_rate(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov),
    )
