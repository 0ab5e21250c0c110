"""LaProp."""

from gradtx.catalog import optimizer
from gradtx.engine.base import GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.optimizers._rmsprop import scale_by_rms
from gradtx.transforms.averaging import ema
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@optimizer(
    "Ziyin, Wang and Ueda, 'LaProp: Separating Momentum and Adaptivity in Adam', arXiv:2002.04839",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=4e-4,
)
def laprop(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-15,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """LaProp: Adam that divides each gradient by the root before it is averaged, not after.

    `nu = b2*nu + (1-b2)*|g|^2; u = g / (sqrt(nu / (1-b2**t)) + eps); mu = b1*mu + (1-b1)*u;
    p - learning_rate * (mu / (1-b1**t) + weight_decay*p)`, where `t` is 1 at the first step. The
    momentum averages numbers of about the same size, so that any `b1` and `b2` are stable together;
    Adam can diverge if `b1**2 > b2`. It is of use with small `b2`, or gradients whose size changes
    fast. It is `chain(scale_by_rms, ema, add_decayed_weights, scale_by_learning_rate)`. In
    the authors' program the learning rate of each step is inside the average.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 4e-4.
      b1: the decay rate of the average of scaled gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-15.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0. The authors' program subtracts `weight_decay * p`, without
        the learning rate.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Ziyin, Wang and Ueda, "LaProp: Separating Momentum and Adaptivity in Adam",
    arXiv:2002.04839.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.laprop(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.001]
    """
    return chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        ema(b1),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
