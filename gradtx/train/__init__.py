"""Training image classifiers: the command `gradtx train`, and its parts for use from Python."""

from gradtx.train import checkpoint as checkpoint
from gradtx.train.curves import curves_png as curves_png, draw_curves as draw_curves
from gradtx.train.data import (
    Data as Data,
    digits as digits,
    load as load,
    mnist as mnist,
    npz as npz,
)
from gradtx.train.epoch import (
    Steps as Steps,
    TrainState as TrainState,
    batches as batches,
    classification_loss as classification_loss,
    make_epoch as make_epoch,
    make_evaluation as make_evaluation,
    steps_per_epoch as steps_per_epoch,
)
from gradtx.train.errors import (
    CheckpointError as CheckpointError,
    DataError as DataError,
    DivergenceError as DivergenceError,
    TrainingError as TrainingError,
)
from gradtx.train.folder import RunFolder as RunFolder
from gradtx.train.idx import read_idx as read_idx
from gradtx.train.job import run as run
from gradtx.train.loop import (
    Progress as Progress,
    Row as Row,
    begin as begin,
    fit as fit,
    learning_rate as learning_rate,
)
from gradtx.train.models import (
    MODELS as MODELS,
    Model as Model,
    cnn_fc as cnn_fc,
    cnn_gap as cnn_gap,
    count_parameters as count_parameters,
    mlp as mlp,
    softmax as softmax,
)
from gradtx.train.optimizer import (
    Recipe as Recipe,
    build_optimizer as build_optimizer,
    default_learning_rate as default_learning_rate,
)
from gradtx.train.options import Options as Options
from gradtx.train.schedules import (
    SCHEDULES as SCHEDULES,
    Length as Length,
    make_schedule as make_schedule,
    schedule_settings as schedule_settings,
)
from gradtx.train.settings import parse_settings as parse_settings
