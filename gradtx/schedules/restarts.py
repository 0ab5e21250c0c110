"""Cosine decays with warm restarts."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Scalar, Schedule
from gradtx.schedules.curves import cosine, mix
from gradtx.schedules.join import join_schedules
from gradtx.schedules.made import known_schedule
from gradtx.schedules.steps import INT32_MAX, as_float, check_positive, how_many_reached
from gradtx.schedules.warmup import warmup_cosine_decay_schedule


@known_schedule
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Scalar]]) -> Schedule:
    """Returns a schedule of several cycles, each with a warm-up and a cosine decay (SGDR).

    Cycle `i` is `warmup_cosine_decay_schedule(**cosine_kwargs[i])` and has `decay_steps` steps;
    after the last cycle, its end value is held. If all cycles have the same peak and no warm-up,
    and their lengths grow by a constant integer factor, `cosine_restarts_schedule` is simpler.

    After Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts"
    (arXiv:1608.03983).

    Args:
      cosine_kwargs: for each cycle, the keyword arguments of `warmup_cosine_decay_schedule`; at
        least one cycle.

    Returns:
      A function of the step count.

    Raises:
      ValueError: there are no cycles, or the arguments of a cycle are invalid.

    Example:
      >>> from gradtx.schedules import sgdr_schedule
      >>> cycle = dict(init_value=0.0, peak_value=1.0, warmup_steps=2, decay_steps=10)
      >>> rate = sgdr_schedule([cycle, {**cycle, "peak_value": 0.5}])
      >>> print(rate(0), rate(2), rate(6), rate(10), rate(12), rate(20))
      0.0 1.0 0.5 0.0 0.5 0.0
    """
    cycles = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    if not cycles:
        raise ValueError("sgdr_schedule: cosine_kwargs must have at least one cycle, got none")
    ends = accumulate(kwargs["decay_steps"] for kwargs in cosine_kwargs)
    return join_schedules(cycles, list(ends)[:-1])


@known_schedule
def cosine_restarts_schedule(
    peak_value: Scalar,
    period: int,
    period_mult: int = 1,
    end_value: Scalar = 0.0,
) -> Schedule:
    """Returns a schedule of cosine decays from the same peak, repeated without end (SGDR).

        T_i      = period * period_mult**i
        value(t) = end_value + (peak_value - end_value) * (1 + cos(pi * T_cur / T_i)) / 2

    `i` is the cycle of step `t`, and `T_cur` is the number of steps since its start. Cycle `i`
    begins at `period * (1 + period_mult + ... + period_mult**(i - 1))`. This is equation 5 of
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts"
    (arXiv:1608.03983), where `T_0` is `period` and `T_mult` is `period_mult`; a first period
    of 10 epochs that doubles at each restart did well there. The last value of a cycle is near
    `end_value`; the next is the peak.

    Args:
      peak_value: the value at the start of every cycle, a float scalar.
      period: the number of steps of the first cycle, a positive Python int.
      period_mult: the ratio of the length of a cycle to that of the cycle before, a positive Python
        int. Default: 1.
      end_value: the value to which every cycle decays, a float scalar. Default: 0.

    Returns:
      A function of the step count.

    Raises:
      TypeError: `period` or `period_mult` is not a Python int.
      ValueError: `period` or `period_mult` is not positive.

    Example:
      >>> from gradtx.schedules import cosine_restarts_schedule
      >>> rate = cosine_restarts_schedule(1.0, period=10, period_mult=2)
      >>> print(rate(0), rate(5), rate(10), rate(20), rate(30), rate(50))
      1.0 0.5 1.0 0.5 1.0 0.5
    """
    for name, x in {"period": period, "period_mult": period_mult}.items():
        if not isinstance(x, int):
            raise TypeError(f"cosine_restarts_schedule: {name} must be a Python int, got {x!r}")
        check_positive("cosine_restarts_schedule", **{name: x})

    def schedule(count: ArrayLike) -> Array:
        count = jnp.maximum(jnp.asarray(count), 0)
        integer = jnp.issubdtype(count.dtype, jnp.integer)
        last = int(jnp.iinfo(count.dtype).max) if integer else INT32_MAX
        if period_mult == 1 or period > last:
            length = float(period)
            since = count % period if period <= last else count
        else:
            # The number of the cycle has a closed form with a logarithm, but rounding in float32
            # puts steps on the wrong side of a restart. The range of an integer has few growing
            # cycles (at most 31 in int32), so their first steps are looked up, exactly.
            starts, lengths = [0], [period]
            while starts[-1] + lengths[-1] <= last:
                starts.append(starts[-1] + lengths[-1])
                lengths.append(lengths[-1] * period_mult)
            marks = np.asarray(starts, count.dtype)
            i = how_many_reached(count, marks[1:])
            since = count - jnp.asarray(marks)[i]
            length = as_float(np.asarray(lengths, np.float64))[i]
        return mix(cosine(1 - as_float(since) / length), peak_value, end_value)

    return schedule
