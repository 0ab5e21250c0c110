"""Cosine decay."""

from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.schedules.curves import cosine, mix, safe_power
from gradtx.schedules.made import known_schedule
from gradtx.schedules.steps import check_not_negative, check_positive, exact, remaining


@known_schedule
def cosine_decay_schedule(
    init_value: Scalar,
    decay_steps: Scalar,
    alpha: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> Schedule:
    """Returns a schedule that decays along half a cosine.

        w(t)     = (1 + cos(pi * min(t, decay_steps) / decay_steps)) / 2
        value(t) = init_value * ((1 - alpha) * w**exponent + alpha)

    This is one cycle of Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm
    Restarts" (arXiv:1608.03983).

    Args:
      init_value: the value at the first step, a float scalar.
      decay_steps: the number of steps of the decay, positive; after it the end value is held.
      alpha: the end value as a fraction of `init_value`. Default: 0.
      exponent: the power of the cosine, not negative. Default: 1.

    Returns:
      A function of the step count.

    Raises:
      ValueError: `decay_steps` is not positive, `exponent` is negative, or one of them is not
        finite.

    Example:
      >>> from gradtx.schedules import cosine_decay_schedule
      >>> decay = cosine_decay_schedule(1.0, decay_steps=100, alpha=0.1)
      >>> print(decay(0), decay(50), decay(100), decay(101))
      1.0 0.55 0.1 0.1
    """
    check_positive("cosine_decay_schedule", decay_steps=decay_steps)
    check_not_negative("cosine_decay_schedule", exponent=exponent)

    def schedule(count: ArrayLike) -> Array:
        weight = safe_power(cosine(remaining(count, decay_steps)), exponent)
        return mix(weight, init_value, exact(init_value) * exact(alpha))

    return schedule
