"""PNM and AdaPNM: positive-negative momentum."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._roles import Count, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import moment_weights
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like

PNM = (
    "Xie et al., 'Positive-Negative Momentum: Manipulating Stochastic Gradient Noise to Improve "
    "Generalization', arXiv:2103.17182"
)


@declared_as("pnm")
class PNMState(NamedTuple):
    """The state of `pnm`.

    Attributes:
      mu: the moving average that has this step's gradient: of every second gradient.
      mu_last: the other one, which has the last step's gradient.
    """

    mu: Slot
    mu_last: Slot


@declared_as("adapnm")
class AdaPNMState(NamedTuple):
    """The state of `adapnm`.

    Attributes:
      count: the number of steps taken.
      mu: the moving average that has this step's gradient: of every second gradient.
      mu_last: the other one, which has the last step's gradient.
      nu: moving average of squared gradients, real.
      nu_max: the largest `nu` so far, real.
    """

    count: Count
    mu: Slot
    mu_last: Slot
    nu: UnsignedSlot
    nu_max: UnsignedSlot


def _positive_negative(g: Array, s: Slots, b1: Scalar, b0: Scalar) -> tuple[Array, Slots]:
    """Returns the difference of both momenta, with the noise of one gradient, and the slots."""
    mu = ema(g, s.mu_last, b1**2)
    difference = lax.sub(times(1 + b0, mu), times(b0, s.mu))
    return over(difference, ((1 + b0) ** 2 + b0**2) ** 0.5), Slots(mu=mu, mu_last=s.mu)


@optimizer(PNM, family="momentum", probe={"learning_rate": 0.05}, usual_rate=0.1)
def pnm(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b0: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """PNM: SGD with the difference of two momenta, whose gradient noise can be set.

    `mu, mu_last = b1**2*mu_last + (1-b1**2)*g, mu;
    u = ((1+b0)*mu - b0*mu_last) / sqrt((1+b0)**2 + b0**2);
    p - learning_rate * (u + weight_decay*p)`. Each momentum averages every second gradient. The
    noise of both adds up while their means are subtracted, so that `b0` sets the ratio of noise to
    gradient without a smaller batch. It aims at generalization, not at speed.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the momentum. Default: 0.9.
      b0: the weight of the negative momentum; 0 for none. Default: 1, as in the authors' program.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Xie et al., "Positive-Negative Momentum: Manipulating Stochastic Gradient Noise to
    Improve Generalization", arXiv:2103.17182.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.pnm(0.1, b1=0.0)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for g in [1.0, 2.0]:
      ...     updates, state = tx.update(jnp.array([g]), state, params)
      >>> print(updates)  # (2*2 - 1) / sqrt(5)
      [-0.13416407]
    """

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), mu_last=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        return _positive_negative(g, s, b1, b0)

    return chain(
        leafwise(PNMState, init, update),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(PNM, family="Adam", probe={"learning_rate": 0.05}, usual_rate=0.001)
def adapnm(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b0: Scalar = 1.0,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """AdaPNM: AMSGrad with the difference of two momenta, whose gradient noise can be set.

    With `u` as in `pnm`: `nu = b2*nu + (1-b2)*|g|^2; nu_max = max(nu_max, nu);
    u / (1-b1**t) / (sqrt(nu_max / (1-b2**t)) + eps)`, where `t` is 1 at the first step, takes the
    place of `u`. As each momentum has only every second gradient, `1-b1**t` is not the sum of its
    weights: with `b0 = 1`, the first step is 1.7 times as long as Adam's.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the momentum. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      b0: the weight of the negative momentum; 0 for none. Default: 1, as in the authors' program.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Xie et al., "Positive-Negative Momentum: Manipulating Stochastic Gradient Noise to
    Improve Generalization", arXiv:2103.17182.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adapnm(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.00169941]
    """

    def init(p: Array) -> Slots:
        zero, real = jnp.zeros_like(p), real_full_like(p, 0)
        return Slots(mu=zero, mu_last=zero, nu=real, nu_max=real)

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        u, momenta = _positive_negative(g, s, b1, b0)
        nu = ema(abs_sq(g), s.nu, b2)
        nu_max = jnp.maximum(s.nu_max, nu)
        scaled = ratio(over(u, s.mu_weight), over(nu_max, s.nu_weight), eps)
        return scaled, Slots(**vars(momenta), nu=nu, nu_max=nu_max)

    return chain(
        leafwise(AdaPNMState, init, update, per_step=moment_weights(b1, b2)),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
