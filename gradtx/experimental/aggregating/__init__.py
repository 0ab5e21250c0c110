"""Optimizers of per-example gradients.

Such gradients have more axes than the parameters. They are transformed separately, then aggregated
to a pytree like the parameters, which is passed to an optimizer. An *element* is one example of
the batch, or anything else that has a gradient of its own; not an element of an array.
"""

from gradtx.experimental.aggregating.averages import (
    AccumulateAvgUpdatesState as AccumulateAvgUpdatesState,
    accumulate_avg_updates as accumulate_avg_updates,
    average_incrementally_updates as average_incrementally_updates,
    average_per_element_updates as average_per_element_updates,
)
from gradtx.experimental.aggregating.processing import process as process
from gradtx.experimental.aggregating.types import (
    AggregatedUpdates as AggregatedUpdates,
    Aggregator as Aggregator,
    AggregatorUpdateFn as AggregatorUpdateFn,
    MaybeAxis as MaybeAxis,
    PerElementUpdates as PerElementUpdates,
    get_batch_size_from_per_elt_updates as get_batch_size_from_per_elt_updates,
)
from gradtx.experimental.aggregating.variance import (
    PerElementMeanAndSumSqDiffGradsState as PerElementMeanAndSumSqDiffGradsState,
    PerElementMeanAndVarianceEMAState as PerElementMeanAndVarianceEMAState,
    add_mean_variance_to_opt as add_mean_variance_to_opt,
    get_per_element_mean_and_sum_sq_diff_grads as get_per_element_mean_and_sum_sq_diff_grads,
    get_unbiased_mean_and_variance_ema as get_unbiased_mean_and_variance_ema,
    track_per_element_mean_and_variance_with_ema as track_per_element_mean_and_variance_with_ema,
)
