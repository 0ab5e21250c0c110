"""AdamW in the direction of the gradient's signs."""

from gradtx.catalog import optimizer
from gradtx.engine.base import GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.pipeline import named
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.gradient_signs import grams
from gradtx.transforms.scaling import scale_by_learning_rate


@optimizer(
    "Cao et al., 'Grams: Gradient Descent with Adaptive Momentum Scaling', arXiv:2412.17107",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def grams_adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Grams with Adam: steps of Adam's magnitudes in the direction of the gradient's signs.

    `u` is the direction of `adam`; `p - learning_rate * (sign(g) * |u| + weight_decay * p)`, where
    `sign(g) = g/|g|` of complex numbers. It is for gradients whose signs can be trusted, from large
    batches, with the learning rate of Adam; see the piece `grams`.

    Args:
      learning_rate: a number, a scalar array or a schedule; 1e-3 in the authors' program.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-6.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Cao et al., "Grams: Gradient Descent with Adaptive Momentum Scaling", arXiv:2412.17107.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.grams_adamw(1e-3, weight_decay=0.1)
      >>> params = jnp.array([2.0, 2.0])
      >>> print(tx.update(jnp.array([4.0, 0.0]), tx.init(params), params)[0])
      [-0.0012 -0.0002]
    """
    return chain(
        grams(named(scale_by_adam(b1, b2, eps), "grams_adamw"), finished=False),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
