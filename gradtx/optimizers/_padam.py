"""Padam: partially adaptive momentum."""

import jax.numpy as jnp

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, plus, root, value_of
from gradtx.engine.rules import Slots
from gradtx.optimizers._amsgrad import ScaleByAmsgradState, zero_moments_and_max
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@optimizer(
    "Chen et al., 'Closing the Generalization Gap of Adaptive Gradient Methods in Training Deep "
    "Neural Networks', arXiv:1806.06763",
    family="Adam",
    probe={"learning_rate": 0.1},
    usual_rate=0.1,
)
def padam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    partial: Scalar = 0.125,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Padam: between SGD and AMSGrad, by a power of the second moment below its root.

    `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2)*|g|^2; nu_max = max(nu_max, nu);
    p - learning_rate * (mu / (sqrt(nu_max) + eps)**(2*partial) + weight_decay*p)`. With
    `partial = 1/2` it is AMSGrad, with 0 SGD with momentum. Learning rates are as large as those of
    SGD. There is no bias correction, as in the paper; the authors' program has that of Adam.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's is 0.1.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      partial: the power of the second moment, from 0 to 1/2. Default: 1/8, as in the paper.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Chen et al., "Closing the Generalization Gap of Adaptive Gradient Methods in Training
    Deep Neural Networks", arXiv:1806.06763.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.padam(0.1, b1=0.0, b2=0.0)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([16.0]), tx.init(params), params)[0])  # 16 / 16**(1/4)
      [-0.8]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        nu_max = jnp.maximum(s.nu_max, nu)
        u = mu / plus(root(nu_max), eps) ** value_of(2 * partial)
        return u, Slots(mu=mu, nu=nu, nu_max=nu_max)

    return chain(
        leafwise(ScaleByAmsgradState, zero_moments_and_max, update),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
