"""Cosine decays that start again."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Schedule
from gradtx.engine.made import known_schedule
from gradtx.schedules.curves import cosine, mix
from gradtx.schedules.join import join_schedules
from gradtx.schedules.steps import INT32_MAX, Scalar, as_float, check_positive, how_many_reached
from gradtx.schedules.warmup import warmup_cosine_decay_schedule


@known_schedule
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> Schedule:
    """Follows one warm-up and cosine decay after another.

    Cycle `i` is `warmup_cosine_decay_schedule(**cosine_kwargs[i])` and takes its `decay_steps`
    steps; after the last, its end value is held. When all cycles have one peak and their lengths
    grow by a constant factor, `cosine_restarts_schedule` says the same without a list.

    After Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts"
    (arXiv:1608.03983).

    Args:
      cosine_kwargs: for each cycle, the arguments of `warmup_cosine_decay_schedule` by name; at
        least one cycle.

    Returns:
      A function of the step count.

    Raises:
      ValueError: there are no cycles, or a cycle's numbers are refused.

    Example:
      >>> from gradtx.schedules import sgdr_schedule
      >>> cycle = dict(init_value=0.0, peak_value=1.0, warmup_steps=2, decay_steps=10)
      >>> rate = sgdr_schedule([cycle, {**cycle, "peak_value": 0.5}])
      >>> print(rate(0), rate(2), rate(6), rate(10), rate(12), rate(20))
      0.0 1.0 0.5 0.0 0.5 0.0
    """
    cycles = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    if not cycles:
        raise ValueError("sgdr_schedule: cosine_kwargs must hold at least one cycle, got none")
    ends = accumulate(kwargs["decay_steps"] for kwargs in cosine_kwargs)
    return join_schedules(cycles, list(ends)[:-1])


@known_schedule
def cosine_restarts_schedule(
    peak_value: Scalar,
    period: int,
    period_mult: int = 1,
    end_value: Scalar = 0.0,
) -> Schedule:
    """Decays along half a cosine, jumps back to the peak and begins again, without end.

        T_i      = period * period_mult**i
        value(t) = end_value + (peak_value - end_value) * (1 + cos(pi * T_cur / T_i)) / 2

    `i` is the cycle that `t` lies in and `T_cur` the steps since it began. Cycle `i` begins at
    `period * (1 + period_mult + ... + period_mult**(i - 1))`. This is equation 5 of Loshchilov and
    Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (arXiv:1608.03983), whose `T_0`
    is `period` and whose `T_mult` is `period_mult`; there, periods of 10 epochs that double did
    well. The value comes near `end_value` at the last step of a cycle; the next step is a peak.

    Args:
      peak_value: the value at the start of every cycle, a float scalar.
      period: how many steps the first cycle takes, a positive Python int.
      period_mult: how many times longer each cycle is than the last, a positive Python int;
        default 1.
      end_value: what every cycle decays to; default 0.

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
            # The cycle's number has a closed form with a logarithm, which float32 rounds to the
            # wrong side of a restart. What an integer can count holds few cycles that grow (31 in
            # int32 at most), so their beginnings are looked up, exactly.
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
