"""AdamC."""

from gradtx._arguments import POSITIVE
from gradtx.catalog import optimizer
from gradtx.engine.base import GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms.combining import chain
from gradtx.transforms.decay_kinds import add_corrected_decay
from gradtx.transforms.scaling import scale_by_learning_rate


@optimizer(
    "Defazio, 'Why Gradients Rapidly Increase Near the End of Training', arXiv:2506.02285",
    family="Adam",
    probe={"learning_rate": 0.05, "max_learning_rate": 0.1, "weight_decay": 0.1},
    usual_rate=0.001,
    ranges={"max_learning_rate": POSITIVE},
)
def adamc(
    learning_rate: ScalarOrSchedule,
    max_learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.05,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """AdamC: AdamW whose weight decay falls with the square of the learning rate.

    `u` is the direction of `adam`;
    `p - learning_rate * (u + weight_decay * learning_rate / max_learning_rate * p)`. With a
    schedule that goes to 0, the usual decay makes the gradients of layers that are followed by a
    normalization grow near the end of training; this keeps the ratio of gradients to weights. At
    the largest learning rate it is AdamW.

    The paper corrects the decay of normalized layers only, and all others have that of `adamw`:
    `gradtx.partition({"normalized": adamc(rate, 1e-3), "others": adamw(rate)}, labels)`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      max_learning_rate: the largest learning rate of the schedule, positive.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient, a number or a schedule; what multiplies it is above. Default:
        0.05.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `max_learning_rate` is not positive, or `update` was called without params.

    Source: Defazio, "Why Gradients Rapidly Increase Near the End of Training", arXiv:2506.02285.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adamc(0.01, max_learning_rate=0.1, weight_decay=1.0)
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])  # 0.01 * (1 + 0.1 * 2)
      [-0.012]
    """
    return chain(
        scale_by_adam(b1, b2, eps),
        add_corrected_decay(weight_decay, learning_rate, max_learning_rate, mask),
        scale_by_learning_rate(learning_rate),
    )
