"""The ranges of hyperparameters, by name, and the meanings of extra arguments."""

import math
import sys
from typing import NamedTuple


class Range(NamedTuple):
    """An interval of numbers.

    Attributes:
      low: the smallest number.
      high: the largest number.
      told: the requirement in error messages, after "must": "be in [0, 1)".
      whole: whether a number must be whole. Default: False.
      way_out: the advice in error messages for numbers below `low`. Default: none.
    """

    low: float
    high: float
    told: str
    whole: bool = False
    way_out: str = ""

    def has(self, x: float) -> bool:
        """Returns whether a number is in the interval; NaN never is."""
        return self.low <= x <= self.high and not (self.whole and x % 1)


FINITE = sys.float_info.max
BELOW_1, ABOVE_0 = math.nextafter(1.0, 0.0), math.nextafter(0.0, 1.0)

NUMBER = Range(-math.inf, math.inf, "be a number, not NaN")
NOT_NEGATIVE = Range(0.0, FINITE, "be finite and not negative")
POSITIVE = Range(ABOVE_0, FINITE, "be finite and positive")
BOUND = Range(0.0, math.inf, "not be negative")
DECAY = Range(0.0, BELOW_1, "be in [0, 1)")
FRACTION = Range(0.0, 1.0, "be in [0, 1]")
SHARE = Range(ABOVE_0, BELOW_1, "be in (0, 1)")
# Negative momentum is useful in games (Gidel et al., arXiv:1807.04740); 1 sums all gradients.
MOMENTUM = Range(math.nextafter(-1.0, 0.0), 1.0, "be in (-1, 1]")
COUNT = Range(1, FINITE, "be a whole number, at least 1", whole=True)
COUNT_OR_0 = Range(0, FINITE, "be a whole number, not negative", whole=True)
RATE = NOT_NEGATIVE._replace(
    way_out="to ascend, wrap the optimizer, with a positive rate, in gradtx.maximize"
)

_NAMES = {
    DECAY: "b1 b2 b3 beta beta3 betas rho decay adam_b1 adam_b2 shampoo_beta gamma1 gamma2 gamma3",
    MOMENTUM: "momentum",
    RATE: "learning_rate adam_learning_rate scaling",
    NOT_NEGATIVE: (
        "eps eps_root epsilon adam_eps_root weight_decay adam_weight_decay weight_decay_rate eta "
        "decay_rate initial_accumulator_value initial_scale noise_multiplier trust_coefficient "
        "slow_step_size warmup_steps damping grafting_eps nonstandard_constant radius sign_radius "
        "compensation b0 delta final_ratio partial l1 l2 wd_ratio eps_instability scale"
    ),
    POSITIVE: (
        "estim_lr0 estim_lr_coef s_init init_estim_sq_dist reps_rel precond_init_scale init_factor"
    ),
    BOUND: (
        "max_delta max_norm threshold clipping clip_threshold clipping_threshold l2_norm_clip "
        "rtol atol min_norm min_scale min_step_size max_step_size max_learning_rate "
        "increase_factor curv_rtol tol stepsize_precision max_rms "
        "max_clamp_value"
    ),
    SHARE: "factor decrease_factor",
    FRACTION: "eta_minus slope_rtol preconditioner_update_probability precond_lr",
    Range(1.0, FINITE, "be finite and at least 1"): "eta_plus",
    COUNT: (
        "k every_k_schedule sync_period memory_size rank update_interval update_proj_gap num_betas "
        "patience accumulation_size iterations precondition_frequency max_dim block_size keep "
        "max_size_triangular max_skew_triangular parts window every leading exponent_override"
    ),
    COUNT_OR_0: (
        "max_consecutive_errors cooldown min_dim_size_to_factor ns_steps "
        "print_win_rate_every_n_steps warmup start min_size"
    ),
}
RANGES = {name: range_ for range_, names in _NAMES.items() for name in names.split()}
"""The range of each hyperparameter, by its name; a factory may declare another range for it."""

SCHEDULED = {("scale", "step_size"): "scale_by_schedule"}
"""For numbers of pieces the pieces that take a schedule in their place."""

FLOATING = (
    "mu_dtype", "accumulator_dtype", "state_dtype", "dtype_momentum", "param_dtype",
    "statistics_dtype",
)  # fmt: skip
"""The dtypes that must be floating, because averages are stored in them."""

MEANINGS = {
    "value": "the loss",
    "weight": "that of the micro-batch, such as the number of its tokens",
    "grad": "the gradient",
    "value_fn": "the loss function",
    "obj_fn": "the loss as a function of the parameters",
    "grad_fn": "the gradient function",
}
"""The meanings of extra arguments of `update`."""
