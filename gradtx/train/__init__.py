"""Training classifiers of images: the main job, and its parts for use from Python."""

from gradtx.train import checkpoint
from gradtx.train.curves import curves_png, draw_curves
from gradtx.train.data import Data, digits, load, mnist, npz
from gradtx.train.epoch import (
    Steps,
    TrainState,
    batches,
    classification_loss,
    make_epoch,
    make_evaluation,
    steps_per_epoch,
)
from gradtx.train.errors import CheckpointError, DataError, DivergenceError, TrainingError
from gradtx.train.folder import RunFolder
from gradtx.train.idx import read_idx
from gradtx.train.job import run
from gradtx.train.loop import Progress, Row, begin, fit, learning_rate
from gradtx.train.models import MODELS, Model, cnn_fc, cnn_gap, count_parameters, mlp, softmax
from gradtx.train.optimizer import Recipe, build_optimizer, default_learning_rate
from gradtx.train.options import Options
from gradtx.train.schedules import SCHEDULES, Length, make_schedule, schedule_settings
from gradtx.train.settings import parse_settings
