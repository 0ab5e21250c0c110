"""Averages of the parameters over steps, kept in the state for evaluation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradtx._arguments import DECAY
from gradtx._roles import Count, Shared, Slot, Statistic, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Scalar,
    ScalarOrSchedule,
    Schedule,
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import default_float, like, times, value_of, widen
from gradtx.engine.rules import Counter, Slots
from gradtx.schedules.made import known_schedule
from gradtx.transforms.storing import store_as
from gradtx.tree.moments import next_count


@declared
class ParamsEmaState(NamedTuple):
    """The state of `params_ema`.

    Attributes:
      count: the number of steps taken.
      average: the average of the parameters.
    """

    count: Count
    average: Slot

    def averaged(self, params: Params | None) -> Params:
        """Returns the average; see `averaged_params`."""
        return self.average


@declared
class ParamsMeanState(NamedTuple):
    """The state of `params_mean`.

    Attributes:
      count: the number of steps taken.
      average: the mean of the parameters.
    """

    count: Count
    average: Slot

    def averaged(self, params: Params | None) -> Params:
        """Returns the average; see `averaged_params`."""
        return self.average


@declared
class LawaState(NamedTuple):
    """The state of `lawa`.

    Attributes:
      count: the number of steps taken; before int32 overflows, a multiple of `window * every` is
        subtracted.
      history: the parameters at the last `window` collections, and initial ones before so many.
      collected: the number of collections among them.
    """

    count: Count
    history: Statistic
    collected: Shared

    def averaged(self, params: Params | None) -> Params:
        """Returns the mean of the collected parameters; see `averaged_params`."""
        number = jnp.maximum(self.collected, 1)

        def mean(history: Array) -> Array:
            wide = widen(history)
            there = jnp.arange(len(wide)) < number
            there = there.reshape(-1, *[1] * (wide.ndim - 1))
            return jnp.sum(jnp.where(there, wide, 0), 0) / like(number, wide)

        return jax.tree.map(mean, self.history)


LAST = {"last": True, "follows": True}
"""Of averages: they do not change the updates, and need those of the parameters."""


@functools.partial(piece, ranges={"decay": DECAY})
def params_ema(
    decay: ScalarOrSchedule = 0.999,
    *,
    warmup: bool = True,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Keeps an exponential moving average of the parameters.

    `average = d * average + (1-d) * (p + u)` with `d = min(decay, (1+t) / (10+t))` and `t` from 1,
    or `d = decay` without warm-up. The average starts at the initial parameters, whose weight the
    warm-up reduces quickly. The updates are not changed.

    It must be at the end of a chain, where `u` are the finished updates, and `p + u` the next
    parameters before they are rounded to their dtype; several averages may follow one another.
    `averaged_params` returns the average.
    Inside `MultiSteps` it averages after each window.

    Args:
      decay: the decay rate, in [0, 1); a number, a scalar array or a schedule. Default: 0.999.
      warmup: whether the decay rate is lower in the first steps. Default: True.
      accumulator_dtype: the dtype in which the average is stored. Default: the parameters' dtype,
        and float32 for half precision, in which an average with a decay rate near 1 would stand
        still.

    Raises:
      ValueError: `update` was called without params.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992);
    the warm-up is that of TensorFlow's `ExponentialMovingAverage`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_ema(0.5, warmup=False))
      >>> p = jnp.zeros(1)
      >>> state = tx.init(p)
      >>> for _ in range(2):
      ...     updates, state = tx.update(-jnp.ones(1), state, p)
      ...     p = p + updates
      >>> print(p, gradtx.averaged_params(state))
      [2.] [1.25]
    """

    def least_weight(step: Array) -> dict[str, Array]:
        t = step.astype(default_float()) + 1
        return {"least": 9 / (10 + t)}

    def update(u: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
        new = value_of(1 - s.decay)  # of a Python number, computed in double
        new = jnp.maximum(new, s.least) if warmup else new
        return u, Slots(average=s.average + times(new, p + u - s.average))

    tx = leafwise(
        ParamsEmaState,
        _copied,
        update,
        params=True,
        scalars={"decay": decay},
        per_step=least_weight if warmup else None,
        traits=LAST,
        name="params_ema",
    )
    return store_as(tx, average=accumulator_dtype)


@piece
def params_mean(
    start: int = 0, every: int = 1, *, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Keeps the mean of the parameters over all steps from a given one, with equal weights.

    `n = n + 1; average = average + (p + u - average) / n` after the steps `start + every`,
    `start + 2*every` and so on, of which the first of all is step 1. Until the first of them the
    average is the parameters themselves. The updates are not changed.

    With `every=1` this is Polyak's average, or with a `start` that of its tail, as in ASGD. With
    the length of a cycle of the learning rate, or of an epoch, it is stochastic weight averaging
    (SWA). It must be at the end of a chain; see `params_ema`.

    Args:
      start: the number of steps before the mean. Default: 0.
      every: the number of steps between two parameters in the mean. Default: 1.
      accumulator_dtype: the dtype in which the average is stored. Default: the parameters' dtype,
        and float32 for half precision.

    Raises:
      ValueError: `update` was called without params.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992);
    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    arXiv:1803.05407.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_mean(start=1))
      >>> p = jnp.zeros(1)
      >>> state = tx.init(p)
      >>> for _ in range(3):
      ...     updates, state = tx.update(-jnp.ones(1), state, p)
      ...     p = p + updates
      >>> print(p, gradtx.averaged_params(state))  # of 2 and 3
      [3.] [2.5]
    """

    def weight(step: Array) -> dict[str, Array]:
        before = step - start
        number = jnp.maximum(before // every, 0).astype(default_float()) + 1
        due = (before < every) | (before % every == every - 1)
        return {"weight": jnp.where(due, 1 / number, 0)}

    def update(u: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
        return u, Slots(average=s.average + times(s.weight, p + u - s.average))

    tx = leafwise(
        ParamsMeanState,
        _copied,
        update,
        params=True,
        per_step=weight,
        traits=LAST,
        name="params_mean",
    )
    return store_as(tx, average=accumulator_dtype)


@piece
def lawa(
    window: int = 6, every: int = 1000, *, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Keeps the parameters of the last few collections, whose mean is the latest weight average.

    After every `every` steps, the parameters `p + u` replace the oldest of the last `window`. Until
    there are `window`, the mean is over those that there are, and before the first it is the
    initial parameters. The updates are not changed. It must be at the end of a chain; see
    `params_ema`. `averaged_params` returns the mean.

    Args:
      window: the number of parameters in the mean, all of which are stored. Default: 6.
      every: the number of steps between them, such as those of an epoch. Default: 1000.
      accumulator_dtype: the dtype in which they are stored. Default: the parameters' dtype, and
        float32 for half precision.

    Raises:
      ValueError: `update` was called without params.

    Source: Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest
    Weight Averaging", arXiv:2209.14981.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.lawa(window=2, every=1))
      >>> p = jnp.zeros(1)
      >>> state = tx.init(p)
      >>> for _ in range(3):
      ...     updates, state = tx.update(-jnp.ones(1), state, p)
      ...     p = p + updates
      >>> print(p, gradtx.averaged_params(state))
      [3.] [2.5]
    """

    def init(p: Array) -> Slots:
        return Slots(history=jnp.broadcast_to(p, (window, *p.shape)))

    def update(u: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
        place = (step // every) % window
        held = lax.dynamic_index_in_dim(s.history, place, 0, keepdims=False)
        new = jnp.where(step % every == every - 1, p + u, held)
        return u, Slots(history=lax.dynamic_update_index_in_dim(s.history, new, place, 0))

    tx = leafwise(
        LawaState,
        init,
        update,
        params=True,
        scalars={"collected": _collected(window, every)},
        counter=Counter(advance=functools.partial(next_count, period=window * every)),
        traits=LAST,
        name="lawa",
    )
    return store_as(tx, history=accumulator_dtype)


@known_schedule
def _collected(window: int, every: int) -> Schedule:
    def collected(count: Scalar) -> Array:
        step = jnp.asarray(count)
        return jnp.minimum(step // every + (step % every == every - 1), window)

    return collected


def _copied(p: Array) -> Slots:
    return Slots(average=p)
