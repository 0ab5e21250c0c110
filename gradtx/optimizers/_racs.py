"""RACS: gradients scaled by rows and by columns."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import POSITIVE, Range
from gradtx._roles import Count, Statistic, Tally, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import abs_sq, ema, times, value_of
from gradtx.engine.rules import Slots
from gradtx.matrices.guard import guarded
from gradtx.matrices.matrixwise import matrixwise
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._parts import matrices_and_rest
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.norms import norms, safe_sqrt

RACS = (
    "Gong et al., 'Towards Efficient Optimizer Design for LLM via Structured Fisher Approximation "
    "with a Low-Rank Extension', arXiv:2502.07752"
)


@declared
class ScaleByRacsState(NamedTuple):
    """The state of `scale_by_racs`.

    Attributes:
      count: the number of steps taken.
      rows: for each leaf, moving average of the scales of rows, for each matrix `[rows]`.
      columns: moving average of the scales of columns, for each matrix `[columns]`.
      norm: the norm of the last update of each matrix.
      rejected: for each matrix, the number of gradients that were not finite.
    """

    count: Count
    rows: Statistic
    columns: Statistic
    norm: Statistic
    rejected: Tally
