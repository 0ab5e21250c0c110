"""Gradient transformations for JAX.

Every optimizer is a pure pair `(init, update)`, composed from small pieces.
"""

from gradtx import catalog, losses, optimizers, schedules, transforms, tree
from gradtx.apply import apply_updates
from gradtx.base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    ScalarOrSchedule,
    Schedule,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    TransformUpdateFn,
    Updates,
    init_empty_state,
    stateless,
    stateless_with_tree_map,
    with_extra_args_support,
)
from gradtx.crosscheck import Comparison, crosscheck
from gradtx.gradcheck import GradientReport, check_gradients
from gradtx.leafwise import leafwise, piece, store_as
from gradtx.losses import (
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from gradtx.numerics import safe_increment
from gradtx.optimizers import (
    ScaleByAdaDeltaState,
    ScaleByAdamState,
    ScaleByAmsgradState,
    ScaleByRmsState,
    ScaleByRpropState,
    ScaleByRssState,
    ScaleByRStdDevState,
    adadelta,
    adagrad,
    adam,
    adamax,
    adamaxw,
    adamw,
    amsgrad,
    momentum,
    nadam,
    nadamw,
    nesterov,
    rmsprop,
    rprop,
    scale_by_adadelta,
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_rms,
    scale_by_rprop,
    scale_by_rss,
    scale_by_stddev,
    scale_by_uncorrected_adam,
    sgd,
    uncorrected_adam,
)
from gradtx.rules import Slots
from gradtx.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    cosine_restarts_schedule,
    exponential_decay,
    inverse_time_decay_schedule,
    join_schedules,
    linear_onecycle_schedule,
    linear_schedule,
    natural_exp_decay_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
    sgdr_schedule,
    step_decay_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_stable_decay_schedule,
)
from gradtx.transforms import (
    AddDecayedWeightsState,
    ClipByGlobalNormState,
    ClipState,
    MaskedNode,
    MaskedState,
    MultiTransformState,
    PartitionState,
    ReduceLROnPlateauState,
    ScaleByLearningRateState,
    ScaleByScheduleState,
    ScaleState,
    TraceState,
    add_decayed_weights,
    chain,
    clip,
    clip_by_global_norm,
    identity,
    masked,
    multi_transform,
    named_chain,
    partition,
    reduce_on_plateau,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
    set_to_zero,
    trace,
)
from gradtx.tree import norm as global_norm

__version__ = "0.1.0"
