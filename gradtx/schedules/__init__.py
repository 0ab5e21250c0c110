"""Schedules: functions of the step count, which is 0 at the first step."""

from gradtx.schedules.constant import constant_schedule
from gradtx.schedules.cosine import cosine_decay_schedule
from gradtx.schedules.decay import (
    exponential_decay,
    inverse_time_decay_schedule,
    natural_exp_decay_schedule,
    step_decay_schedule,
)
from gradtx.schedules.join import join_schedules
from gradtx.schedules.onecycle import cosine_onecycle_schedule, linear_onecycle_schedule
from gradtx.schedules.piecewise import (
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
)
from gradtx.schedules.polynomial import linear_schedule, polynomial_schedule
from gradtx.schedules.restarts import cosine_restarts_schedule, sgdr_schedule
from gradtx.schedules.warmup import (
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)
from gradtx.schedules.wsd import warmup_stable_decay_schedule
