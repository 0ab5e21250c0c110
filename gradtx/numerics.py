"""Arithmetic on one array for writing rules: averages, roots, norms, safe counters."""

from gradtx.engine.numerics import (
    NeedsConstant as NeedsConstant,
    Number as Number,
    abs_sq as abs_sq,
    compute_dtype as compute_dtype,
    default_float as default_float,
    ema as ema,
    like as like,
    over as over,
    plus as plus,
    ratio as ratio,
    root as root,
    safe_increment as safe_increment,
    safe_int32_increment as safe_int32_increment,
    times as times,
    value_of as value_of,
    widen as widen,
)
from gradtx.tree.filling import real_full_like as real_full_like, zeros_without as zeros_without
from gradtx.tree.moments import (
    gathered_weight as gathered_weight,
    one_minus_power as one_minus_power,
    step_number as step_number,
)
from gradtx.tree.norms import (
    rescale as rescale,
    safe_norm as safe_norm,
    safe_root_mean_squares as safe_root_mean_squares,
    safe_sqrt as safe_sqrt,
)
