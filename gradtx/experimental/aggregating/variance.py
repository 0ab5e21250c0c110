"""Moving averages of the mean and the variance of gradients over examples."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._roles import Count, Shared, Slot, UnsignedSlot, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    Scalar,
    Updates,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.numerics import abs_sq, default_float, ema, widen
from gradtx.engine.pipeline import wrapped
from gradtx.experimental.aggregating.processing import process
from gradtx.experimental.aggregating.types import (
    AggregatedUpdates,
    Aggregator,
    PerElementUpdates,
    axes_of,
    get_batch_size_from_per_elt_updates,
)
from gradtx.transforms.combining import chain, identity
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import gathered_weight


@declared
class PerElementMeanAndSumSqDiffGradsState(NamedTuple):
    """The state of `get_per_element_mean_and_sum_sq_diff_grads` over several calls.

    Attributes:
      micro_step: the number of micro-batches so far.
      ready: whether the last call was the last of its batch.
      mean_grads: the mean over all elements so far.
      sum_sq_diff_grads: the sum of their squared distances from the mean, real.
    """

    micro_step: Count
    ready: Shared
    mean_grads: Slot
    sum_sq_diff_grads: UnsignedSlot


@declared
class PerElementMeanAndVarianceEMAState(NamedTuple):
    """The state of `track_per_element_mean_and_variance_with_ema`.

    Attributes:
      count: the number of batches so far.
      ema_decay: decay rate of both averages.
      mean_grads_ema: moving average of the mean gradients, without bias correction.
      variance_grads_ema: moving average of the variances, real, also without bias correction.
    """

    count: Count
    ema_decay: Shared
    mean_grads_ema: Slot
    variance_grads_ema: UnsignedSlot


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros_like(widen(x)), tree)


def _real_zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: real_full_like(widen(x), 0), tree)


def get_per_element_mean_and_sum_sq_diff_grads(
    per_elt_axis: int | Sequence[int] = 0, accumulation_steps: int = 1
) -> Aggregator:
    """Returns an aggregator that computes the mean and the sum of squared distances from it.

    With the `n` elements `g[e]` of a batch, `m = sum(g) / n` and `s = sum(|g[e] - m|^2)`.
    Micro-batches of `n` elements are combined in one pass and without cancellation: with `k`
    earlier ones and `diff = m - mean`::

        mean   = mean + diff / (k + 1)
        sum_sq = sum_sq + s + |diff|^2 * n * k / (k + 1)

    Args:
      per_elt_axis: the axis or axes of elements. Default: 0.
      accumulation_steps: the number of calls in a batch, with equal numbers of elements.
        Default: 1.

    Returns:
      An aggregator whose `update` returns the pair of the mean and
      `{"sum_sq_diff_grads": sum_sq, "sample_size": elements in the batch}`; zeros, and a sample
      size of 0, while the batch is not complete.

    Raises:
      ValueError: `accumulation_steps` is less than 1, or leaves differ in their number of elements.

    Source: Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance: Analysis and
    Recommendations" (The American Statistician 37, 1983).

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.get_per_element_mean_and_sum_sq_diff_grads()
      >>> (mean, aux), _ = tx.update(jnp.array([1.0, 2.0, 6.0]), tx.init(jnp.zeros(())))
      >>> print(mean, aux["sum_sq_diff_grads"], aux["sample_size"])
      3.0 14.0 3
    """
    if accumulation_steps < 1:
        raise ValueError(
            "get_per_element_mean_and_sum_sq_diff_grads: accumulation_steps must be positive, got "
            f"{accumulation_steps}"
        )
    axes = axes_of(per_elt_axis)

    def mean(g: Array) -> Array:
        return jnp.mean(widen(g), axis=axes)

    def sum_sq(g: Array) -> Array:
        g = widen(g)
        return jnp.sum(abs_sq(g - jnp.mean(g, axis=axes, keepdims=True)), axis=axes)

    def like(tree: PyTree, updates: Updates) -> PyTree:
        return jax.tree.map(lambda x, g: x.astype(jnp.result_type(g)), tree, updates)

    @compiled_when_concrete
    def of_one_batch(updates: PerElementUpdates) -> tuple[Updates, Updates]:
        return like(jax.tree.map(mean, updates), updates), jax.tree.map(sum_sq, updates)

    @compiled_when_concrete
    def of_micro_batch(
        updates: PerElementUpdates, s: PerElementMeanAndSumSqDiffGradsState
    ) -> tuple[AggregatedUpdates, PerElementMeanAndSumSqDiffGradsState]:
        n = get_batch_size_from_per_elt_updates(updates, per_elt_axis)
        before, step = s.micro_step, s.micro_step + 1
        ready = step >= accumulation_steps
        diffs = jax.tree.map(lambda g, m: mean(g).astype(m.dtype) - m, updates, s.mean_grads)
        means = jax.tree.map(lambda m, d: m + d / step, s.mean_grads, diffs)
        sums = jax.tree.map(
            lambda q, g, d: q + (sum_sq(g) + abs_sq(d) * (n * before / step)).astype(q.dtype),
            s.sum_sq_diff_grads,
            updates,
            diffs,
        )

        def if_ready(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x: jnp.where(ready, x, 0), tree)

        def unless_ready(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x: jnp.where(ready, 0, x), tree)

        aux = {"sum_sq_diff_grads": if_ready(sums), "sample_size": if_ready(n * step)}
        state = PerElementMeanAndSumSqDiffGradsState(
            unless_ready(step), ready, unless_ready(means), unless_ready(sums)
        )
        return (like(if_ready(means), updates), aux), state

    def init(params: Params) -> OptState:
        if accumulation_steps == 1:
            return identity().init(params)
        return PerElementMeanAndSumSqDiffGradsState(
            micro_step=jnp.zeros((), jnp.int32),
            ready=jnp.zeros((), bool),
            mean_grads=_zeros(params),
            sum_sq_diff_grads=_real_zeros(params),
        )

    def update(
        updates: PerElementUpdates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[AggregatedUpdates, OptState]:
        del params, extra
        if accumulation_steps > 1:
            return of_micro_batch(updates, state)
        means, sums = of_one_batch(updates)
        sample_size = get_batch_size_from_per_elt_updates(updates, per_elt_axis)
        return (means, {"sum_sq_diff_grads": sums, "sample_size": sample_size}), state

    return Aggregator(init, update)


def track_per_element_mean_and_variance_with_ema(ema_decay: Scalar = 0.9) -> GradientTransformation:
    """Updates averages of the gradients' mean and variance, and returns the updates unchanged.

    `mean_ema = d * mean_ema + (1 - d) * mean`, and likewise for the unbiased sample variance
    `sum_sq_diff_grads / (sample_size - 1)`, where `d = ema_decay`. It is for use in `process`,
    after `get_per_element_mean_and_sum_sq_diff_grads`, which returns `sum_sq_diff_grads` and
    `sample_size`, the extra arguments of this `update`.

    Args:
      ema_decay: decay rate of both averages, in [0, 1). Default: 0.9.

    Raises:
      ValueError: `update` was called without these arguments, or with `sample_size=1`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.track_per_element_mean_and_variance_with_ema(0.9)
      >>> g = jnp.array(3.0)
      >>> _, state = tx.update(g, tx.init(g), sum_sq_diff_grads=jnp.array(14.0), sample_size=3)
      >>> print(aggregating.get_unbiased_mean_and_variance_ema(state)[1])
      7.0
    """
    name = "track_per_element_mean_and_variance_with_ema"

    def init(params: Params) -> PerElementMeanAndVarianceEMAState:
        return PerElementMeanAndVarianceEMAState(
            count=jnp.zeros((), jnp.int32),
            ema_decay=jnp.asarray(ema_decay, default_float()),
            mean_grads_ema=_zeros(params),
            variance_grads_ema=_real_zeros(params),
        )

    @compiled_when_concrete
    def follow(
        updates: Updates, s: PerElementMeanAndVarianceEMAState, sums: Updates, sample_size: Scalar
    ) -> PerElementMeanAndVarianceEMAState:
        seen = sample_size > 0  # False while a batch is incomplete

        def average(new: ArrayLike, old: Array) -> Array:
            return jnp.where(seen, ema(jnp.asarray(new).astype(old.dtype), old, s.ema_decay), old)

        freedom = jnp.maximum(sample_size - 1, 1)
        variance = jax.tree.map(lambda q: q / freedom, sums)
        return PerElementMeanAndVarianceEMAState(
            count=s.count + seen,
            ema_decay=s.ema_decay,
            mean_grads_ema=jax.tree.map(average, updates, s.mean_grads_ema),
            variance_grads_ema=jax.tree.map(average, variance, s.variance_grads_ema),
        )

    def update(
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        *,
        sum_sq_diff_grads: Updates | None = None,
        sample_size: Scalar | None = None,
        **extra: Any,
    ) -> tuple[Updates, OptState]:
        del params, extra
        if sum_sq_diff_grads is None or sample_size is None:
            raise ValueError(f"{name}: needs update(..., sum_sq_diff_grads=..., sample_size=...)")
        if isinstance(sample_size, int) and sample_size == 1:
            raise ValueError(
                f"{name}: sample_size must be at least 2, got 1, which has no variance"
            )
        return updates, follow(updates, state, sum_sq_diff_grads, sample_size)

    return wrapped(init, update, name=name, state=PerElementMeanAndVarianceEMAState)


def get_unbiased_mean_and_variance_ema(state: OptState) -> tuple[Updates, Updates]:
    """Returns the averages of mean and variance with bias correction.

    `ema / (1 - ema_decay**count)`; zeros before the first batch is complete.

    Args:
      state: any state that contains a `PerElementMeanAndVarianceEMAState`.

    Returns:
      The pair of the mean and the variance, pytrees like the parameters.

    Raises:
      ValueError: the state does not contain it.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(0.1))
      >>> _, state = tx.update(jnp.array([1.0, 2.0, 6.0]), tx.init(jnp.zeros(())))
      >>> print(*aggregating.get_unbiased_mean_and_variance_ema(state))
      3.0 7.0
    """

    def has_averages(x: PyTree) -> bool:
        return isinstance(x, PerElementMeanAndVarianceEMAState)

    found = [s for s in jax.tree.leaves(state, is_leaf=has_averages) if has_averages(s)]
    if not found:
        raise ValueError(
            "get_unbiased_mean_and_variance_ema: the state must contain a "
            "PerElementMeanAndVarianceEMAState; see add_mean_variance_to_opt"
        )
    s = found[0]
    weight = gathered_weight(s.ema_decay, s.count)

    def corrected(average: Array) -> Array:
        return jnp.where(weight > 0, average / jnp.where(weight > 0, weight, 1), 0)

    return jax.tree.map(corrected, s.mean_grads_ema), jax.tree.map(corrected, s.variance_grads_ema)


def add_mean_variance_to_opt(
    opt: GradientTransformation,
    ema_decay: Scalar = 0.9,
    per_elt_axis: int | Sequence[int] = 0,
    accumulation_steps: int = 1,
) -> Aggregator:
    """Returns an optimizer of per-example gradients that averages their mean and variance.

    The optimizer itself gets the mean gradient. `get_unbiased_mean_and_variance_ema` returns the
    averages.

    Args:
      opt: an optimizer.
      ema_decay: decay rate of the two averages. Default: 0.9.
      per_elt_axis: the axis or axes of examples. Default: 0.
      accumulation_steps: the number of calls in a batch; updates are zero until it is complete.
        Default: 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.experimental import aggregating
      >>> tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(1.0))
      >>> w, x = jnp.array(1.0), jnp.array([1.0, 2.0, 3.0])
      >>> gradients = jax.vmap(jax.grad(lambda w, x: w * x), (None, 0))(w, x)
      >>> updates, state = tx.update(gradients, tx.init(w))
      >>> print(updates, *aggregating.get_unbiased_mean_and_variance_ema(state))
      -2.0 2.0 1.0
    """
    tx = process(
        identity(),
        get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis, accumulation_steps),
        chain(track_per_element_mean_and_variance_with_ema(ema_decay), opt),
        aggregator_has_aux=True,
    )
    return Aggregator(tx.init, tx.update)
