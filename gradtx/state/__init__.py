"""Parts of states by name and role: declaring, reading, saving and loading them."""

from gradtx._roles import (
    Aside as Aside,
    Clock as Clock,
    Count as Count,
    Hyperparameter as Hyperparameter,
    Inner as Inner,
    Projected as Projected,
    RandomKey as RandomKey,
    Rate as Rate,
    Reading as Reading,
    Role as Role,
    Shared as Shared,
    Slot as Slot,
    Statistic as Statistic,
    Tally as Tally,
    Told as Told,
    UnsignedSlot as UnsignedSlot,
    UnsignedStatistic as UnsignedStatistic,
)
from gradtx.state.belonging import LeafRole as LeafRole, roles as roles
from gradtx.state.layout import optax_layout as optax_layout
from gradtx.state.optax_import import load_optax as load_optax
from gradtx.state.reading import hyperparams as hyperparams, metrics as metrics
from gradtx.state.saving import (
    LoadReport as LoadReport,
    StateMismatch as StateMismatch,
    load_matching as load_matching,
    load_state_dict as load_state_dict,
    state_dict as state_dict,
)
from gradtx.state.selecting import (
    add_decay_by_path as add_decay_by_path,
    by_path as by_path,
    layerwise_decay as layerwise_decay,
    multiply_by_path as multiply_by_path,
)
from gradtx.state.sharding import state_sharding as state_sharding
from gradtx.state.storing import store as store
from gradtx.state.summarizing import Group as Group, Summary as Summary, summary as summary
from gradtx.state.torch_import import load_torch as load_torch
