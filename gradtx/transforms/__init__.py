"""The pieces that optimizers are made of."""

from gradtx.rules import MaskedNode as MaskedNode
from gradtx.transforms.clipping import (
    ClipByGlobalNormState as ClipByGlobalNormState,
    ClipState as ClipState,
    clip as clip,
    clip_by_global_norm as clip_by_global_norm,
)
from gradtx.transforms.combining import (
    chain as chain,
    identity as identity,
    named_chain as named_chain,
)
from gradtx.transforms.decay import (
    AddDecayedWeightsState as AddDecayedWeightsState,
    add_decayed_weights as add_decayed_weights,
)
from gradtx.transforms.freezing import set_to_zero as set_to_zero
from gradtx.transforms.masking import MaskedState as MaskedState, masked as masked
from gradtx.transforms.momentum import TraceState as TraceState, trace as trace
from gradtx.transforms.partitioning import (
    MultiTransformState as MultiTransformState,
    PartitionState as PartitionState,
    multi_transform as multi_transform,
    partition as partition,
)
from gradtx.transforms.plateau import (
    ReduceLROnPlateauState as ReduceLROnPlateauState,
    reduce_on_plateau as reduce_on_plateau,
)
from gradtx.transforms.scaling import (
    ScaleByLearningRateState as ScaleByLearningRateState,
    ScaleByScheduleState as ScaleByScheduleState,
    ScaleState as ScaleState,
    scale as scale,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_schedule as scale_by_schedule,
)
