"""Schedule-free SGD and AdamW."""

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._arguments import FRACTION
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.rules import value_at
from gradtx.optimizers._rmsprop import scale_by_rms
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.iterate_averaging import schedule_free
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import step_number

SOURCE = "Defazio et al., 'The Road Less Scheduled', arXiv:2405.15682"


@optimizer(
    SOURCE,
    family="averaging",
    probe={"learning_rate": 0.1},
    usual_rate=1.0,
    ranges={"b1": FRACTION},
)
def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: Scalar | None = None,
    b1: Scalar = 0.9,
    weight_decay: ScalarOrSchedule | None = None,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Schedule-free SGD: averaged iterates instead of a decaying learning rate.

    `z = z - rate * (g + weight_decay * y)`, and the parameters `y` interpolate between `z` and the
    average of all `z`; see `schedule_free`. The average is for evaluation: get it with
    `schedule_free_eval_params`. With `t` from 1, `rate = learning_rate * min(t / warmup_steps, 1)`.

    Args:
      learning_rate: usually larger than for SGD; a number, a scalar array or a schedule. Default:
        1.
      warmup_steps: the number of steps in which the rate rises to `learning_rate`. Default: `None`,
        no warm-up.
      b1: the weight of the average in `y`, in [0, 1]. Default: 0.9.
      weight_decay: the coefficient of L2 regularization, a number or a schedule:
        `weight_decay * y` is added to the gradient. Default: `None`, no decay.
      weight_lr_power: the weights of the average are this power of the largest rate so far; 0 for
        the plain mean. Default: 2.
      state_dtype: the dtype in which `z` is stored. Default: the parameters' dtype, and float32 for
        half precision.

    Raises:
      ValueError: `b1` is not in [0, 1], `warmup_steps` is negative, or `update` was called without
        params.

    Source: Defazio et al., "The Road Less Scheduled", arXiv:2405.15682.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.schedule_free_sgd(0.5), jnp.array([1.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([1.0]), state, params)
      ...     params = params + updates
      >>> print(params, gradtx.schedule_free_eval_params(state, params))
      [0.225] [0.25]
    """
    rate = warmed_up(learning_rate, warmup_steps, "schedule_free_sgd")
    descent = chain(identity(), scale_by_learning_rate(rate))  # states nested as in optax
    if weight_decay is not None:
        descent = chain(add_decayed_weights(weight_decay), descent)
    return schedule_free(descent, rate, b1, weight_lr_power, state_dtype)


@optimizer(
    SOURCE,
    family="averaging",
    probe={"learning_rate": 0.05},
    usual_rate=0.0025,
    ranges={"b1": FRACTION},
)
def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: Scalar | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Schedule-free AdamW: averaged iterates instead of a decaying learning rate.

    With `nu = b2*nu + (1-b2)*|g|^2` and `t` from 1,
    `z = z - rate * (g / (sqrt(nu / (1-b2**t)) + eps) + weight_decay * y)`, and the parameters `y`
    interpolate between `z` and the average of all `z`, which takes the place of momentum; see
    `schedule_free`. The average is for evaluation: get it with `schedule_free_eval_params`. The
    rate is `learning_rate * min(t / warmup_steps, 1)`. Here, as in the authors' code, the bias
    correction of `nu` does not affect the weights of the average. With RAdam's warm-up,
    `schedule_free_adamw(rectified_schedule(rate, b2), b2=b2)`, it is the authors' schedule-free
    RAdam.

    Args:
      learning_rate: usually larger than for AdamW; a number, a scalar array or a schedule. Default:
        0.0025.
      warmup_steps: the number of steps in which the rate rises to `learning_rate`. Default: `None`,
        no warm-up.
      b1: the weight of the average in `y`, in [0, 1]. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, which the rate multiplies. Default:
        0.
      weight_lr_power: the weights of the average are this power of the largest rate so far; 0 for
        the plain mean. Default: 2.
      state_dtype: the dtype in which `z` is stored. Default: the parameters' dtype, and float32 for
        half precision.

    Raises:
      ValueError: `b1` is not in [0, 1], `warmup_steps` is negative, or `update` was called without
        params.

    Source: Defazio et al., "The Road Less Scheduled", arXiv:2405.15682.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.schedule_free_adamw(0.5), jnp.array([1.0])
      >>> updates, state = tx.update(jnp.array([4.0]), tx.init(params), params)
      >>> print(updates)
      [-0.5]
    """
    rate = warmed_up(learning_rate, warmup_steps, "schedule_free_adamw")
    descent = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(rate),
    )
    return schedule_free(descent, rate, b1, weight_lr_power, state_dtype)


def warmed_up(
    learning_rate: ScalarOrSchedule, warmup_steps: Scalar | None, name: str
) -> ScalarOrSchedule:
    """Returns the learning rate with a warm-up: `learning_rate * min(t / warmup_steps, 1)`.

    `t` is 1 at the first step, whose rate is therefore not 0.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      warmup_steps: the number of steps, or `None` for no warm-up.
      name: the name of the optimizer in errors.
    """
    if warmup_steps is None:
        return learning_rate

    def schedule(count: Scalar) -> Array:
        t = step_number(count)
        share = jnp.where(t < warmup_steps, t / jnp.maximum(warmup_steps, 1), 1.0)
        return share * value_at(learning_rate, count)

    return schedule
