"""Large batches in little memory: a function runs on one part of the batch after another."""

from gradtx.microbatching.accumulators import (
    AccumulationType as AccumulationType,
    Accumulator as Accumulator,
)
from gradtx.microbatching.batches import (
    microbatch as microbatch,
    reshape_batch_axis as reshape_batch_axis,
)
from gradtx.microbatching.per_example import (
    Aux as Aux,
    micro_grad as micro_grad,
    micro_vmap as micro_vmap,
)
