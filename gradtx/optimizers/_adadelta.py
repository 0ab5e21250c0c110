"""AdaDelta."""

from typing import NamedTuple

from gradtx._roles import UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, plus, ratio, root
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like


@declared
class ScaleByAdaDeltaState(NamedTuple):
    """The state of `scale_by_adadelta`.

    Attributes:
      e_g: moving average of squared gradients, real.
      e_x: moving average of squared steps, real.
    """

    e_g: UnsignedSlot
    e_x: UnsignedSlot


@piece
def scale_by_adadelta(rho: Scalar = 0.9, eps: Scalar = 1e-6) -> GradientTransformation:
    """Scales gradients by the ratio of the root mean squares of past steps and of gradients.

    `e_g = rho*e_g + (1-rho)*|g|^2; u = sqrt(e_x + eps) / sqrt(e_g + eps) * g;
    e_x = rho*e_x + (1-rho)*|u|^2`.

    Args:
      rho: the decay rate of both averages. Default: 0.9.
      eps: added under both roots; it sets the size of the first steps. Default: 1e-6.

    Source: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_adadelta()
      >>> print(tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))[0])
      [0.00316226]
    """

    def init(p: Array) -> Slots:
        return Slots(e_g=real_full_like(p, 0), e_x=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        e_g = ema(abs_sq(g), s.e_g, rho)
        u = ratio(g, plus(e_g, eps), 0.0) * root(plus(s.e_x, eps))
        return u, Slots(e_g=e_g, e_x=ema(abs_sq(u), s.e_x, rho))

    return leafwise(ScaleByAdaDeltaState, init, update)


@optimizer(
    "Zeiler, 'ADADELTA: An Adaptive Learning Rate Method', arXiv:1212.5701",
    family="Adam",
    probe={"learning_rate": 10.0},
    scale_free=True,
)
def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """AdaDelta: steps in the unit of the parameters, without a learning rate.

    `p - learning_rate * sqrt(e_x + eps) / sqrt(e_g + eps) * g`, see `scale_by_adadelta`.

    Args:
      learning_rate: a number, a scalar array or a schedule. Default: `None`, the paper's rate of 1.
      rho: the decay rate of both averages. Default: 0.9; the paper also uses 0.95.
      eps: added under both roots. Default: 1e-6.
      weight_decay: the coefficient of L2 regularization, a number or a schedule:
        `weight_decay * p` is added to the gradient. Default: 0.
      weight_decay_mask: which parameters decay: a pytree of booleans, or a function of the
        parameters that returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adadelta()
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([1.0]), tx.init(params), params)[0])
      [-0.00316226]
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )
