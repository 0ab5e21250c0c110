"""The one-cycle policy: up to a peak, down again, and far below the initial value."""

import math

from gradtx.engine.base import Scalar, Schedule
from gradtx.schedules.made import known_schedule
from gradtx.schedules.piecewise import interpolate
from gradtx.schedules.steps import check_positive, exact, is_number


@known_schedule
def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Scalar,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    """Returns a one-cycle schedule: up, down, and further down to a small value, all linearly.

        t = 0:                                   peak_value / div_factor
        t = floor(pct_start * transition_steps): peak_value
        t = floor(pct_final * transition_steps): peak_value / div_factor
        t = transition_steps:                    peak_value / (div_factor * final_div_factor)

    It is linear between these; the last value is held. This is the policy of Smith and Topin,
    "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates"
    (arXiv:1708.07120).

    Args:
      transition_steps: the number of steps of the cycle, a positive Python number.
      peak_value: the largest value, a float scalar.
      pct_start: the fraction of the cycle at which the peak is reached, in [0, 1]. Default: 0.3.
      pct_final: the fraction of the cycle at which the value is the initial one again, at least
        `pct_start` and at most 1. Default: 0.85.
      div_factor: the ratio of the peak to the first value, positive. Default: 25.
      final_div_factor: the ratio of the first value to the last, positive. Default: 1e4.

    Returns:
      A function of the step count.

    Raises:
      TypeError: `transition_steps` or a fraction is not a Python number.
      ValueError: `transition_steps` or a ratio is not positive and finite, or the fractions are out
        of order.

    Example:
      >>> from gradtx.schedules import linear_onecycle_schedule
      >>> rate = linear_onecycle_schedule(100, 1.0, pct_start=0.3, pct_final=0.7, div_factor=10.0)
      >>> print(rate(0), rate(15), rate(30), rate(50), rate(70), rate(100))
      0.1 0.55 1.0 0.55 0.1 1e-05
    """
    function = "linear_onecycle_schedule"
    check_positive(function, div_factor=div_factor, final_div_factor=final_div_factor)
    peak = exact(peak_value)
    first = peak / exact(div_factor)
    return interpolate(
        "linear",
        _marks(function, transition_steps, pct_start=pct_start, pct_final=pct_final),
        [first, peak, first, first / exact(final_div_factor)],
    )


@known_schedule
def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Scalar,
    pct_start: float = 0.3,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    """Returns a one-cycle schedule: up and down along half cosines.

        t = 0:                                   peak_value / div_factor
        t = floor(pct_start * transition_steps): peak_value
        t = transition_steps:                    peak_value / (div_factor * final_div_factor)

    Half cosines connect these; the last value is held. After Smith and Topin, "Super-Convergence:
    Very Fast Training of Neural Networks Using Large Learning Rates" (arXiv:1708.07120), with
    the two phases that are common in practice.

    Args:
      transition_steps: the number of steps of the cycle, a positive Python number.
      peak_value: the largest value, a float scalar.
      pct_start: the fraction of the cycle at which the peak is reached, in [0, 1]. Default: 0.3.
      div_factor: the ratio of the peak to the first value, positive. Default: 25.
      final_div_factor: the ratio of the first value to the last, positive. Default: 1e4.

    Returns:
      A function of the step count.

    Raises:
      TypeError: `transition_steps` or `pct_start` is not a Python number.
      ValueError: `transition_steps` or a ratio is not positive and finite, or `pct_start` is not in
        [0, 1].

    Example:
      >>> from gradtx.schedules import cosine_onecycle_schedule
      >>> rate = cosine_onecycle_schedule(100, 1.0, div_factor=10.0, final_div_factor=1e3)
      >>> print(rate(0), rate(15), rate(30), rate(100), rate(101))
      0.1 0.55 1.0 0.0001 0.0001
    """
    function = "cosine_onecycle_schedule"
    check_positive(function, div_factor=div_factor, final_div_factor=final_div_factor)
    peak = exact(peak_value)
    first = peak / exact(div_factor)
    return interpolate(
        "cosine",
        _marks(function, transition_steps, pct_start=pct_start),
        [first, peak, first / exact(final_div_factor)],
    )


def _marks(function: str, transition_steps: float, **fractions: float) -> list[float]:
    """Returns the steps at which the phases of the cycle end."""
    given = {"transition_steps": transition_steps, **fractions}
    for name, x in given.items():
        if not is_number(x):
            raise TypeError(f"{function}: {name} must be a Python number, got {x!r}")
    check_positive(function, transition_steps=transition_steps)
    values = list(fractions.values())
    if not all(a <= b for a, b in zip([0, *values], [*values, 1], strict=True)):
        told = ", ".join(f"{name}={x}" for name, x in fractions.items())
        raise ValueError(f"{function}: must be 0 <= {' <= '.join(fractions)} <= 1, got {told}")
    return [*(math.floor(x * transition_steps) for x in values), transition_steps]
