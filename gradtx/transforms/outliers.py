"""Skipping steps whose loss or gradient is far outside of what it has been."""

import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx import tree
from gradtx._arguments import POSITIVE, Range
from gradtx._roles import Count, Inner, Reading, Shared, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Scalar,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.checks import check_value
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import default_float, safe_increment
from gradtx.engine.pipeline import wrapped
from gradtx.transforms.guards import run_if
from gradtx.tree.moments import next_count

AT_LEAST_2 = Range(2, math.inf, "be a whole number, at least 2", whole=True)


@declared
class SkipOutliersState(NamedTuple):
    """The state of `skip_outliers`; `gradtx.metrics` returns `skipped`.

    Attributes:
      count: the number of finite measurements so far; before int32 overflows, a multiple of
        `window` is subtracted.
      history: the last `window` finite measurements, each a norm of the gradients and a loss.
      skipped: the number of skipped steps.
      inner_state: the state of the optimizer.
    """

    count: Count
    history: Shared
    skipped: Reading
    inner_state: Inner


@functools.partial(piece, ranges={"sigma": POSITIVE, "window": AT_LEAST_2})
def skip_outliers(
    inner: TransformationLike, window: int = 128, sigma: Scalar = 6.0
) -> GradientTransformation:
    """Skips steps whose gradient norm or loss is far above its mean over the last steps.

    A step is skipped if `x - mean(history) > sigma * std(history)` for the global norm of the
    gradients or, if it is given as `update(..., value=loss)`, for the loss; `history` are the last
    `window` values before this step, and `std` is that of a sample. It is also skipped if one of
    them is not finite. Nothing else is skipped until there are `window / 2` values. The values of
    skipped steps enter the history, so that a lasting change is accepted after some steps; those
    that are not finite do not.

    A skipped step returns zeros and leaves the state of `inner` unchanged. Give the loss at every
    step or at none.

    Args:
      inner: the optimizer.
      window: the number of values from which mean and deviation are computed, at least 2.
        Default: 128.
      sigma: the largest number of standard deviations above the mean. Default: 6.

    Raises:
      ValueError: `window` is less than 2.

    Source: Team OLMo, "2 OLMo 2 Furious", arXiv:2501.00656, and OLMo-core's `SkipStepOptimizer`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.skip_outliers(gradtx.sgd(0.1), window=8)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in (1.0, 1.1, 0.9, 1.0, 1.05, 100.0):
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates, gradtx.metrics(state)["skipped"])
      [0.] 1
    """
    inner = with_extra_args_support(inner)

    def init(params: Params) -> SkipOutliersState:
        zero = jnp.zeros((), jnp.int32)
        history = jnp.zeros((window, 2), default_float())
        return SkipOutliersState(zero, history, zero + 0, inner.init(params))

    @compiled_when_concrete
    def judge(
        updates: Updates, value: ArrayLike, count: Array, history: Array, skipped: Array
    ) -> tuple[Array, ...]:
        now = jnp.stack([tree.norm(updates), jnp.asarray(value)]).astype(history.dtype)
        # Deviations from this step's value are exactly 0 while nothing changes.
        number = jnp.minimum(count, window)
        there = (jnp.arange(window) < number)[:, None]
        away = jnp.where(there, history - now, 0)
        mean = jnp.sum(away, 0) / jnp.maximum(number, 1)
        squares = jnp.sum(jnp.where(there, jnp.square(away - mean), 0), 0)
        usual = -mean <= sigma * jnp.sqrt(squares / jnp.maximum(number - 1, 1))
        finite = jnp.all(jnp.isfinite(now))
        go = finite & (jnp.all(usual) | (number < max(2, window // 2)))
        kept = jnp.where(finite, history.at[count % window].set(now), history)
        count = jnp.where(finite, next_count(count, window), count)
        return go, count, kept, jnp.where(go, skipped, safe_increment(skipped))

    def update(
        updates: Updates,
        state: SkipOutliersState,
        params: Params | None = None,
        *,
        value: ArrayLike | None = None,
        **extra: Any,
    ) -> tuple[Updates, SkipOutliersState]:
        loss = 0.0 if value is None else value
        check_value(loss)
        go, count, history, skipped = judge(
            updates, loss, state.count, state.history, state.skipped
        )
        extra = extra if value is None else {"value": value, **extra}
        zeros = tree.zeros_like(updates)
        updates, inner_state = run_if(go, inner, updates, state.inner_state, params, extra, zeros)
        return updates, SkipOutliersState(count, history, skipped, inner_state)

    return wrapped(init, update, inner, name="skip_outliers", state=SkipOutliersState)
