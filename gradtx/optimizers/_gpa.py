"""AdamW with generalized primal averaging."""

from gradtx._arguments import FRACTION
from gradtx.catalog import optimizer
from gradtx.engine.base import GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.pipeline import named
from gradtx.optimizers._adam import adamw
from gradtx.transforms.iterate_averaging import primal_averaging


@optimizer(
    "Defazio et al., 'Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs', "
    "arXiv:2512.17131",
    family="averaging",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
    ranges={"mu_x": FRACTION, "mu_y": FRACTION},
)
def gpa_adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn | None = None,
    mu_x: ScalarOrSchedule = 0.9967,
    mu_y: Scalar = 0.7,
) -> GradientTransformation:
    """GPA-AdamW: AdamW whose gradients are taken between its iterates and their average.

    `z = z - learning_rate * (u + weight_decay * z)` with the direction `u` of `adam`,
    `x = mu_x * x + (1 - mu_x) * z` and `y = mu_y * x + (1 - mu_y) * z`, where `y` are the
    parameters, at which gradients are taken, and `x`, which `averaged_params` returns, is for
    evaluation. It is `primal_averaging(adamw(...), mu_x, mu_y)`; see `primal_averaging` for what
    the two mean. It is for long runs, as `schedule_free_adamw`, but with a schedule and a shorter
    memory.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay of `z`, a number or a schedule; the
        learning rate multiplies it. Default: 1e-4.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      mu_x: the decay rate of the average, in [0, 1]; a number or a schedule. Default: 0.9967.
      mu_y: the weight of the average where gradients are taken, in [0, 1]. Default: 0.7.

    Raises:
      ValueError: `mu_x` or `mu_y` is not in [0, 1], or `update` was called without params.

    Source: Defazio et al., "Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs",
    arXiv:2512.17131.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, p = gradtx.gpa_adamw(0.1, weight_decay=0.0), jnp.zeros(1)
      >>> state = tx.init(p)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state, p)
      ...     p = p + updates
      >>> print(state.z, p.round(3))
      [-0.2] [-0.061]
    """
    steps = adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
    return primal_averaging(named(steps, "gpa_adamw"), mu_x, mu_y)
