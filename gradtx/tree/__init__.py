"""Functions of pytrees: arithmetic, reductions, casts, random pytrees, moments, parts of states."""

from gradtx.tree.arithmetic import (
    add as add,
    add_scale as add_scale,
    clip as clip,
    conj as conj,
    div as div,
    mul as mul,
    real as real,
    scale as scale,
    sub as sub,
    where as where,
)
from gradtx.tree.casting import cast as cast, cast_like as cast_like, dtype as dtype
from gradtx.tree.filling import (
    batch_shape as batch_shape,
    full_like as full_like,
    ones_like as ones_like,
    zeros_like as zeros_like,
)
from gradtx.tree.lookup import (
    get as get,
    get_all_with_path as get_all_with_path,
    set as set,
)
from gradtx.tree.moments import (
    bias_correction as bias_correction,
    update_infinity_moment as update_infinity_moment,
    update_moment as update_moment,
    update_moment_per_elem_norm as update_moment_per_elem_norm,
)
from gradtx.tree.params import map_params as map_params
from gradtx.tree.random import (
    random_like as random_like,
    split_key_like as split_key_like,
    unwrap_random_key_data as unwrap_random_key_data,
)
from gradtx.tree.reductions import (
    allclose as allclose,
    max as max,
    min as min,
    norm as norm,
    size as size,
    sum as sum,
    vdot as vdot,
)
