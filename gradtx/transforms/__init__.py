"""The pieces that optimizers are made of."""

from gradtx.rules import MaskedNode
from gradtx.transforms.clipping import ClipByGlobalNormState, ClipState, clip, clip_by_global_norm
from gradtx.transforms.combining import chain, identity, named_chain
from gradtx.transforms.decay import AddDecayedWeightsState, add_decayed_weights
from gradtx.transforms.freezing import set_to_zero
from gradtx.transforms.masking import MaskedState, masked
from gradtx.transforms.momentum import TraceState, trace
from gradtx.transforms.partitioning import (
    MultiTransformState,
    PartitionState,
    multi_transform,
    partition,
)
from gradtx.transforms.plateau import ReduceLROnPlateauState, reduce_on_plateau
from gradtx.transforms.scaling import (
    ScaleByLearningRateState,
    ScaleByScheduleState,
    ScaleState,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)
