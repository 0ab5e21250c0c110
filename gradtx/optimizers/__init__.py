"""Optimizers, one family a file."""

from gradtx.optimizers.adadelta import ScaleByAdaDeltaState, adadelta, scale_by_adadelta
from gradtx.optimizers.adagrad import ScaleByRssState, adagrad, scale_by_rss
from gradtx.optimizers.adam import (
    ScaleByAdamState,
    adam,
    adamw,
    nadam,
    nadamw,
    scale_by_adam,
    scale_by_uncorrected_adam,
    uncorrected_adam,
)
from gradtx.optimizers.adamax import adamax, adamaxw, scale_by_adamax
from gradtx.optimizers.amsgrad import ScaleByAmsgradState, amsgrad, scale_by_amsgrad
from gradtx.optimizers.rmsprop import (
    ScaleByRmsState,
    ScaleByRStdDevState,
    rmsprop,
    scale_by_rms,
    scale_by_stddev,
)
from gradtx.optimizers.rprop import ScaleByRpropState, rprop, scale_by_rprop
from gradtx.optimizers.sgd import momentum, nesterov, sgd
