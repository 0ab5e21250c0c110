"""QHM and QHAdam: quasi-hyperbolic momentum."""

import jax.numpy as jnp

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, moment_weights, zero_moments
from gradtx.transforms.averaging import EmaState
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

QH = "Ma and Yarats, 'Quasi-hyperbolic momentum and Adam for deep learning', arXiv:1810.06801"


@optimizer(QH, family="momentum", probe={"learning_rate": 0.1, "b1": 0.9}, usual_rate=1.0)
def qhm(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.999, nu: Scalar = 0.7
) -> GradientTransformation:
    """QHM: a mix of the gradient and its moving average, which is SGD with two time scales.

    `mu = b1*mu + (1-b1)*g; p - learning_rate * ((1-nu)*g + nu*mu)`. With `nu = 0` it is SGD, with
    `nu = 1` momentum, with `nu = b1` Nesterov momentum, each with the learning rate times `1-b1`.
    Unlike in these, `b1` can be very near 1. The average has no bias correction.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors advise 1, or that of
        SGD with momentum divided by `1-b1`.
      b1: the decay rate of the average of gradients. Default: 0.999.
      nu: the weight of the average; 1 minus that of the gradient. Default: 0.7.

    Source: Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", arXiv:1810.06801.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.qhm(1.0, b1=0.5, nu=0.5)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])  # 4/2 + 2/2
      [-3.]
    """

    def init(p: Array) -> Slots:
        return Slots(ema=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.ema, b1)
        return ema(g, mu, nu), Slots(ema=mu)

    return chain(leafwise(EmaState, init, update), scale_by_learning_rate(learning_rate))


@optimizer(
    QH, family="Adam", probe={"learning_rate": 0.05, "b1": 0.9, "nu1": 0.9}, usual_rate=0.001
)
def qhadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.995,
    b2: Scalar = 0.999,
    nu1: Scalar = 0.7,
    nu2: Scalar = 1.0,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """QHAdam: Adam with a mix of the gradient and its average, and of their squares.

    `m = (1-nu1)*g + nu1*mu_hat; v = (1-nu2)*|g|^2 + nu2*nu_hat;
    p - learning_rate * (m / (sqrt(v) + eps) + weight_decay*p)`, where `mu_hat` and `nu_hat` are the
    averages of Adam with bias correction. With `nu1 = nu2 = 1` it is Adam, with `nu1 = b1` about
    NAdam, with `nu1 = 0` RMSProp. With `nu2` below 1, no step is longer than
    `learning_rate / sqrt(1-nu2)`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.995, as the authors recommend; in
        their program it is 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      nu1: the weight of the average of gradients. Default: 0.7, as the authors recommend; in their
        program it is 1.
      nu2: the weight of the average of squares. Default: 1.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", arXiv:1810.06801.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.qhadam(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.001]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        square = abs_sq(g)
        mu, nu = ema(g, s.mu, b1), ema(square, s.nu, b2)
        m = ema(g, over(mu, s.mu_weight), nu1)
        nu_hat = over(nu, s.nu_weight)
        # A square that has overflowed may have the weight 0.
        finite = jnp.minimum(square, jnp.finfo(nu.dtype).max)
        v = ema(finite, nu_hat, nu2)
        return ratio(m, v, eps), Slots(mu=mu, nu=nu)

    return chain(
        leafwise(ScaleByAdamState, zero_moments, update, per_step=moment_weights(b1, b2)),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
