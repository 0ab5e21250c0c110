"""AdamW and Lion with cautious updates."""

from gradtx.catalog import optimizer
from gradtx.engine.base import GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.pipeline import named
from gradtx.optimizers._adam import scale_by_adam
from gradtx.optimizers._lion import scale_by_lion
from gradtx.transforms.caution import cautious
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

CAUTIOUS = (
    "Liang et al., 'Cautious Optimizers: Improving Training with One Line of Code', "
    "arXiv:2411.16085"
)


@optimizer(CAUTIOUS, family="Adam", probe={"learning_rate": 0.05}, usual_rate=0.001)
def cautious_adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """C-AdamW: AdamW without those elements of its steps that go against the gradient.

    `u` is the direction of `adamw`, `agrees = u * g > 0; u = u * agrees * n / (sum(agrees) + 1)`
    for each leaf of `n` elements; `p - learning_rate * (u + weight_decay * p)`. Weight decay is not
    masked. It is a safe change of a recipe for AdamW, with the same learning rate; see `cautious`.

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

    Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code",
    arXiv:2411.16085.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.cautious_adamw(1e-3, weight_decay=0.1)
      >>> params = jnp.array([2.0, 2.0])
      >>> print(tx.update(jnp.array([4.0, 0.0]), tx.init(params), params)[0])
      [-0.0012 -0.0002]
    """
    return chain(
        cautious(named(scale_by_adam(b1, b2, eps), "cautious_adamw"), finished=False),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(CAUTIOUS, family="sign", probe={"learning_rate": 0.02}, usual_rate=1e-4)
def cautious_lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """C-Lion: Lion without those elements of its steps that go against the gradient.

    `u` is the direction of `lion`, `agrees = u * g > 0; u = u * agrees * n / (sum(agrees) + 1)` for
    each leaf of `n` elements; `p - learning_rate * (u + weight_decay * p)`. Weight decay is not
    masked; see `cautious`.

    Args:
      learning_rate: a number, a scalar array or a schedule; 1e-4 in the authors' program.
      b1: the weight of the momentum in the mix. Default: 0.9.
      b2: the decay rate of the average of gradients. Default: 0.99.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code",
    arXiv:2411.16085.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.cautious_lion(1e-3, weight_decay=0.1)
      >>> params = jnp.array([2.0, 2.0])
      >>> print(tx.update(jnp.array([4.0, 0.0]), tx.init(params), params)[0])
      [-0.0012 -0.0002]
    """
    return chain(
        cautious(named(scale_by_lion(b1, b2), "cautious_lion"), finished=False),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
