"""Schedules: functions of the step count, which is 0 at the first step."""

from gradtx.engine.base import Schedule as Schedule
from gradtx.schedules.constant import constant_schedule as constant_schedule
from gradtx.schedules.cosine import cosine_decay_schedule as cosine_decay_schedule
from gradtx.schedules.decay import (
    exponential_decay as exponential_decay,
    inverse_time_decay_schedule as inverse_time_decay_schedule,
    natural_exp_decay_schedule as natural_exp_decay_schedule,
    step_decay_schedule as step_decay_schedule,
)
from gradtx.schedules.inject import (
    InjectHyperparamsState as InjectHyperparamsState,
    InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    StatefulSchedule as StatefulSchedule,
    WrappedSchedule as WrappedSchedule,
    inject_hyperparams as inject_hyperparams,
    inject_stateful_hyperparams as inject_stateful_hyperparams,
)
from gradtx.schedules.join import join_schedules as join_schedules
from gradtx.schedules.onecycle import (
    cosine_onecycle_schedule as cosine_onecycle_schedule,
    linear_onecycle_schedule as linear_onecycle_schedule,
)
from gradtx.schedules.piecewise import (
    piecewise_constant_schedule as piecewise_constant_schedule,
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
)
from gradtx.schedules.polynomial import (
    linear_schedule as linear_schedule,
    polynomial_schedule as polynomial_schedule,
)
from gradtx.schedules.rectified import rectified_schedule as rectified_schedule
from gradtx.schedules.restarts import (
    cosine_restarts_schedule as cosine_restarts_schedule,
    sgdr_schedule as sgdr_schedule,
)
from gradtx.schedules.warmup import (
    warmup_constant_schedule as warmup_constant_schedule,
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
)
from gradtx.schedules.wsd import warmup_stable_decay_schedule as warmup_stable_decay_schedule
