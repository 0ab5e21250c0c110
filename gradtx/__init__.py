"""Gradient transformations for JAX.

Every optimizer is a pure pair `(init, update)`, composed from small pieces.
"""

from gradtx import (
    catalog as catalog,
    losses as losses,
    optimizers as optimizers,
    schedules as schedules,
    transforms as transforms,
    tree as tree,
)
from gradtx.apply import apply_updates as apply_updates
from gradtx.base import (
    EmptyState as EmptyState,
    GradientTransformation as GradientTransformation,
    GradientTransformationExtraArgs as GradientTransformationExtraArgs,
    OptState as OptState,
    Params as Params,
    ScalarOrSchedule as ScalarOrSchedule,
    Schedule as Schedule,
    TransformInitFn as TransformInitFn,
    TransformUpdateExtraArgsFn as TransformUpdateExtraArgsFn,
    TransformUpdateFn as TransformUpdateFn,
    Updates as Updates,
    init_empty_state as init_empty_state,
    stateless as stateless,
    stateless_with_tree_map as stateless_with_tree_map,
    with_extra_args_support as with_extra_args_support,
)
from gradtx.crosscheck import Comparison as Comparison, crosscheck as crosscheck
from gradtx.gradcheck import GradientReport as GradientReport, check_gradients as check_gradients
from gradtx.leafwise import leafwise as leafwise, piece as piece, store_as as store_as
from gradtx.losses import (
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
)
from gradtx.numerics import safe_increment as safe_increment
from gradtx.optimizers import *
from gradtx.rules import Slots as Slots
from gradtx.schedules import (
    constant_schedule as constant_schedule,
    cosine_decay_schedule as cosine_decay_schedule,
    cosine_onecycle_schedule as cosine_onecycle_schedule,
    cosine_restarts_schedule as cosine_restarts_schedule,
    exponential_decay as exponential_decay,
    inverse_time_decay_schedule as inverse_time_decay_schedule,
    join_schedules as join_schedules,
    linear_onecycle_schedule as linear_onecycle_schedule,
    linear_schedule as linear_schedule,
    natural_exp_decay_schedule as natural_exp_decay_schedule,
    piecewise_constant_schedule as piecewise_constant_schedule,
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
    polynomial_schedule as polynomial_schedule,
    sgdr_schedule as sgdr_schedule,
    step_decay_schedule as step_decay_schedule,
    warmup_constant_schedule as warmup_constant_schedule,
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
    warmup_stable_decay_schedule as warmup_stable_decay_schedule,
)
from gradtx.transforms import (
    AddDecayedWeightsState as AddDecayedWeightsState,
    ClipByGlobalNormState as ClipByGlobalNormState,
    ClipState as ClipState,
    MaskedNode as MaskedNode,
    MaskedState as MaskedState,
    MultiTransformState as MultiTransformState,
    PartitionState as PartitionState,
    ReduceLROnPlateauState as ReduceLROnPlateauState,
    ScaleByLearningRateState as ScaleByLearningRateState,
    ScaleByScheduleState as ScaleByScheduleState,
    ScaleState as ScaleState,
    TraceState as TraceState,
    add_decayed_weights as add_decayed_weights,
    chain as chain,
    clip as clip,
    clip_by_global_norm as clip_by_global_norm,
    identity as identity,
    masked as masked,
    multi_transform as multi_transform,
    named_chain as named_chain,
    partition as partition,
    reduce_on_plateau as reduce_on_plateau,
    scale as scale,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_schedule as scale_by_schedule,
    set_to_zero as set_to_zero,
    trace as trace,
)
from gradtx.tree import norm as global_norm

__version__ = "0.1.0"
