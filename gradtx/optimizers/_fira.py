"""Fira: Adam on a low-rank projection of gradients, and the rest of them scaled like it."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from jax import lax

from gradtx._arguments import POSITIVE
from gradtx._roles import Count, Statistic, Tally, UnsignedStatistic, declared
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
from gradtx.engine.numerics import times, value_of
from gradtx.engine.rules import Slots
from gradtx.linear_algebra.singular_vectors import principal_vectors
from gradtx.matrices.guard import guarded
from gradtx.matrices.matrixwise import matrixwise
from gradtx.matrices.projections import (
    adam_of,
    first_moments,
    growth,
    into,
    limited,
    on_wide,
    weights_of_moments,
)
from gradtx.matrices.sides import product
from gradtx.optimizers._adam import adamw
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.scaling import scale_by_learning_rate

FIRA = (
    "Chen et al., 'Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?', "
    "arXiv:2410.01623"
)
RANGES = {"gamma": POSITIVE}


@declared
class ScaleByFiraState(NamedTuple):
    """The state of `scale_by_fira`.

    Attributes:
      count: the number of steps taken.
      mu: for each leaf, moving average of projected gradients, for each matrix `[rank, columns]`,
        or `[rows, rank]` if it has more rows than columns.
      nu: moving average of their squares.
      projector: the orthonormal columns of the projector of each matrix, `[shorter side, rank]`.
      norm: the norm of the last step of the rest of each matrix, without `scale`.
      rejected: for each matrix, the number of gradients that were not finite.
    """

    count: Count
    mu: Statistic
    nu: UnsignedStatistic
    projector: Statistic
    norm: UnsignedStatistic
    rejected: Tally


@functools.partial(piece, ranges=RANGES)
def scale_by_fira(
    rank: int = 128,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    *,
    gamma: Scalar | None = 1.01,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Applies Adam to projections of matrices, and scales what they leave out by the same factors.

    For matrices with no more rows than columns, with `t` 1 at the first step, and the orthonormal
    columns of `P`, `[rows, rank]`::

        r = P.H @ g;   mu = b1*mu + (1-b1)*r;   nu = b2*nu + (1-b2)*abs(r)**2
        d = mu / (1-b1**t) / (sqrt(nu / (1-b2**t)) + eps)
        rest = (g - P @ r) * norm(d, each column) / norm(r, each column)
        rest = rest * min(1, gamma * last / norm(rest));   last = norm(rest)
        update = scale * (P @ d + rest)

    Tall matrices are transposed before and after. Every `update_proj_gap` steps, from the first on,
    `P` becomes the `rank` leading left singular vectors of `g`, with signs as in `scale_by_galore`,
    and zeros for singular values that are 0. Moments are not rotated. At the first step, and after
    one in which `rest` was 0, its norm is not limited.

    A matrix whose gradient is not finite, or so large that its squares are not, counts as having a
    gradient of zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are
    returned as they are, for `gradtx.apply_if_finite` to find. Derivatives treat `P` as a constant.

    Args:
      rank: the number of singular vectors, at least 1, and the shorter side for matrices in which
        that is less. Default: 128.
      update_proj_gap: the number of steps for which `P` is kept, at least 1. Default: 200.
      scale: the factor of the updates. Default: 1.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.999.
      eps: added to the root. Default: 1e-6.
      gamma: the largest factor by which the norm of `rest` grows from step to step, positive;
        `None` for no limit. Default: 1.01.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: a leaf is not a matrix and has no dimension numbers.

    Source: Chen et al., "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
    Constraint?", arXiv:2410.01623, Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_fira(rank=1)
      >>> g = jnp.array([[4.0, 0.0], [2.0, 0.0]])
      >>> print(jnp.abs(tx.update(g, tx.init(g))[0]).round(3))
      [[0.894 0.   ]
       [0.447 0.   ]]
    """

    def init(p: Array) -> Slots:
        return Slots(**first_moments(p, rank))

    @guarded
    @on_wide
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        projector = lax.cond(
            step % value_of(update_proj_gap) == 0,
            lambda: principal_vectors(lax.stop_gradient(g), s.projector, only_range=True),
            lambda: s.projector,
        )
        r = into(projector, g)
        d, moments = adam_of(r, s, b1, b2, eps)
        rest, norm = limited((g - product(projector, r)) * growth(d, r, (1,)), s.norm, gamma)
        slots = Slots(**moments, projector=projector, norm=norm, rejected=s.rejected)
        return times(scale, product(projector, d) + rest), slots

    return matrixwise(
        ScaleByFiraState, init, update, axes=weight_dimension_numbers,
        per_step=functools.partial(weights_of_moments, b1, b2),
        argument="weight_dimension_numbers", name="scale_by_fira",
    )  # fmt: skip


@optimizer(
    FIRA,
    family="low rank",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "rank": 1, "update_proj_gap": 5},
    usual_rate=0.001,
    ranges=RANGES,
)
def fira(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    gamma: Scalar | None = 1.01,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """Fira: Adam on projections of matrices and the rest scaled like it, AdamW for other leaves.

    `p - learning_rate * (u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_fira`.

    The authors' program multiplies `P @ d` and `P @ r` by its `alpha`, but not the rest; it limits
    the growth of norms before the correction of the moments for their start at zero, multiplies the
    step by that correction, and adds 1e-8 to the norms of projections.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      rank: the number of singular vectors, at least 1. Default: 128.
      update_proj_gap: the number of steps for which the projector is kept, at least 1. Default:
        200.
      scale: the factor of the updates of matrices. Default: 1.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.999.
      eps: added to the root. Default: 1e-6.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      gamma: the largest factor by which the norm of the rest grows from step to step, positive;
        `None` for no limit. Default: 1.01.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same hyperparameters.

    Raises:
      ValueError: `update` was called without params.

    Source: Chen et al., "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
    Constraint?", arXiv:2410.01623.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.ones((64, 256)), "b": jnp.zeros(256)}
      >>> state = gradtx.fira(0.001, rank=4).init(params)
      >>> state.inner_states["matrices"].inner_state[0].nu["w"].shape
      (1, 4, 256)
    """
    of_matrices = chain(
        scale_by_fira(
            rank,
            update_proj_gap,
            scale,
            b1,
            b2,
            eps,
            gamma=gamma,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)
