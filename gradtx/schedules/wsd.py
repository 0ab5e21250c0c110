"""Warm-up, a long constant phase, and a short decay at the end (WSD)."""

from typing import Literal, get_args

from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.schedules.constant import constant_schedule
from gradtx.schedules.curves import cosine, geometric_mix, mix, one_minus_sqrt
from gradtx.schedules.join import join_schedules
from gradtx.schedules.made import known_schedule
from gradtx.schedules.polynomial import linear_schedule
from gradtx.schedules.steps import (
    check_not_negative,
    check_positive,
    remaining,
)

DecayType = Literal["linear", "sqrt", "cosine", "exponential"]
CURVES = {"linear": lambda r: r, "sqrt": one_minus_sqrt, "cosine": cosine}


@known_schedule
def warmup_stable_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    stable_steps: Scalar,
    decay_steps: Scalar,
    end_value: Scalar = 0.0,
    decay_type: DecayType = "sqrt",
) -> Schedule:
    """Returns a schedule with a linear warm-up, a constant peak, and a decay (WSD).

        t < warmup_steps:                value(t) = init_value + (peak_value - init_value)
                                                    * t / warmup_steps
        t < warmup_steps + stable_steps: value(t) = peak_value
        otherwise:                       value(t) = end_value + (peak_value - end_value) * c(p)
        p = min((t - warmup_steps - stable_steps) / decay_steps, 1)

    `c(p)` is `1 - p` (linear), `1 - sqrt(p)` (sqrt) or `(1 + cos(pi p)) / 2` (cosine). The
    exponential decay is linear in the logarithm:
    `value(t) = peak_value * (end_value / peak_value)**p`.

    The length of training need not be known while the peak is held: a run can be continued from
    there, and decayed from any checkpoint. The source is "MiniCPM: Unveiling the Potential of Small
    Language Models with Scalable Training Strategies" (arXiv:2404.06395), which decays
    exponentially over about the last tenth of training. Hägele et al., "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations" (arXiv:2405.18392), found `"sqrt"` to
    be the best decay.

    Args:
      init_value: the value at the first step, a float scalar.
      peak_value: the value that is held, a float scalar.
      warmup_steps: the number of warm-up steps, not negative; at 0 the schedule starts at the
        peak.
      stable_steps: the number of steps at the peak, not negative.
      decay_steps: the number of steps of the decay *alone*, positive.
      end_value: the value that is held after the decay, a float scalar. For the exponential decay,
        it and the peak must be positive. Default: 0.
      decay_type: `"linear"`, `"sqrt"`, `"cosine"` or `"exponential"`. Default: `"sqrt"`.

    Returns:
      A function of the step count.

    Raises:
      ValueError: a number of steps is negative or not finite, `decay_steps` is 0, `decay_type` is
        unknown, or an exponential decay has a peak or end value that is not positive.

    Example:
      >>> from gradtx.schedules import warmup_stable_decay_schedule
      >>> rate = warmup_stable_decay_schedule(0.0, 1.0, 10, 80, 10, decay_type="linear")
      >>> print(rate(0), rate(5), rate(10), rate(90), rate(95), rate(100), rate(101))
      0.0 0.5 1.0 1.0 0.5 0.0 0.0
    """
    name = "warmup_stable_decay_schedule"
    check_not_negative(name, warmup_steps=warmup_steps, stable_steps=stable_steps)
    check_positive(name, decay_steps=decay_steps)
    if decay_type not in get_args(DecayType):
        known = ", ".join(map(repr, get_args(DecayType)))
        raise ValueError(f"{name}: decay_type must be one of {known}, got {decay_type!r}")
    if decay_type == "exponential":
        check_positive(f"{name} (exponential)", peak_value=peak_value, end_value=end_value)

    def decay(count: ArrayLike) -> Array:
        r = remaining(count, decay_steps)
        if decay_type == "exponential":
            return geometric_mix(r, peak_value, end_value)
        return mix(CURVES[decay_type](r), peak_value, end_value)

    return join_schedules(
        [
            linear_schedule(init_value, peak_value, warmup_steps),
            constant_schedule(peak_value),
            decay,
        ],
        [warmup_steps, warmup_steps + stable_steps],
    )
