"""RACS: gradients scaled by rows and by columns."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import POSITIVE
from gradtx._roles import Count, Tally, UnsignedStatistic, declared
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
from gradtx.engine.numerics import abs_sq, ema
from gradtx.engine.rules import Slots
from gradtx.matrices.guard import guarded
from gradtx.matrices.matrixwise import matrixwise
from gradtx.matrices.projections import limited
from gradtx.optimizers._adam import adamw
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.scaling import scale, scale_by_learning_rate
from gradtx.tree.norms import safe_sqrt

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
    rows: UnsignedStatistic
    columns: UnsignedStatistic
    norm: UnsignedStatistic
    rejected: Tally


@functools.partial(piece, ranges={"gamma": POSITIVE})
def scale_by_racs(
    beta: Scalar = 0.9,
    gamma: Scalar = 1.01,
    iterations: int = 5,
    *,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Divides gradients by the roots of scales of rows and of columns, and limits their growth.

    The scales `q` of rows and `s` of columns, with which `q @ s.T` is nearest to the squares of the
    gradient, are found by a fixed-point iteration from `q = 1`::

        s = sum(q * |g|^2, over rows) / sum(q^2)
        q = sum(s * |g|^2, over columns) / sum(s^2)

    Averages of them divide the gradient::

        columns = beta*columns + (1-beta)*s;   rows = beta*rows + (1-beta)*q
        u = g / sqrt(rows * columns)
        update = u * min(1, gamma * norm / |u|);   norm = |update|

    At the first step the norm is not limited. There is no bias correction, as in the paper. Rows
    and columns of zeros have updates of zeros.

    A matrix whose gradient is not finite, or so large that its squares are not, counts as having a
    gradient of zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are
    returned as they are, for `gradtx.apply_if_finite` to find. After an update of zeros the norm is
    not limited either.

    Args:
      beta: decay rate of the averages of scales, in [0, 1). Default: 0.9.
      gamma: the largest factor by which the norm of an update grows from step to step; positive.
        Default: 1.01.
      iterations: the number of iterations, a Python integer, at least 1. Default: 5.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: a leaf is not a matrix and has no dimension numbers.

    Source: Gong et al., "Towards Efficient Optimizer Design for LLM via Structured Fisher
    Approximation with a Low-Rank Extension", arXiv:2502.07752, Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_racs(beta=0.0)
      >>> g = jnp.array([[2.0, -4.0], [1.0, 2.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[ 1. -1.]
       [ 1.  1.]]
    """

    def init(p: Array) -> Slots:
        n, rows, columns = p.shape
        real = jnp.finfo(p.dtype).dtype
        return Slots(
            rows=jnp.zeros((n, rows), real),
            columns=jnp.zeros((n, columns), real),
            norm=jnp.zeros((n,), real),
            rejected=jnp.zeros((n,), jnp.int32),
        )

    @guarded
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        size = jnp.max(jnp.abs(g), (1, 2), keepdims=True)
        size = jnp.where(size > 0, size, 1)
        squares = abs_sq(g / size.astype(g.dtype))
        c = _nearest(squares, jnp.ones((*g.shape[:2], 1), size.dtype), 1)
        q = _nearest(squares, c, 2)
        for _ in range(iterations - 1):
            c = _nearest(squares, q, 1)
            q = _nearest(squares, c, 2)
        rows = ema(q[:, :, 0], s.rows, beta)
        columns = ema((size**2 * c)[:, 0, :], s.columns, beta)
        # two roots, because the product of the scales may overflow
        root = safe_sqrt(rows)[:, :, None] * safe_sqrt(columns)[:, None, :]
        nonzero = root > 0
        u = jnp.where(nonzero, g / jnp.where(nonzero, root, 1).astype(g.dtype), 0)
        u, norm = limited(u, s.norm, gamma)
        return u, Slots(rows=rows, columns=columns, norm=norm, rejected=s.rejected)

    return matrixwise(
        ScaleByRacsState,
        init,
        update,
        axes=weight_dimension_numbers,
        argument="weight_dimension_numbers",
        name="scale_by_racs",
    )


def _nearest(squares: Array, other: Array, axis: int) -> Array:
    """Returns the scales of one side for which the product with the other's is nearest to squares.

    Args:
      squares: the squares, `(n, rows, columns)`.
      other: the scales of the other side, with 1 in place of this side.
      axis: the axis of the other side.
    """
    total = jnp.sum(other**2, axis, keepdims=True)
    found = jnp.sum(other * squares, axis, keepdims=True)
    return jnp.where(total > 0, found / jnp.where(total > 0, total, 1), 0)


@optimizer(
    RACS,
    family="factored",
    acts_on="matrices",
    probe={"learning_rate": 0.5},
    usual_rate=0.02,
    ranges={"gamma": POSITIVE, "alpha": POSITIVE},
)
def racs(
    learning_rate: ScalarOrSchedule,
    beta: Scalar = 0.9,
    alpha: Scalar = 0.05,
    gamma: Scalar = 1.01,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    iterations: int = 5,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """RACS: gradients of matrices scaled by rows and columns, and AdamW for all other leaves.

    `p - learning_rate * (alpha * u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_racs`. The state is that of two vectors for each matrix.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      beta: decay rate of the averages of scales, in [0, 1). Default: 0.9.
      alpha: the factor of the updates of matrices; positive. Default: 0.05.
      gamma: the largest factor by which the norm of an update grows from step to step; positive.
        Default: 1.01.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      iterations: the number of fixed-point iterations for the scales, a Python integer, at least 1.
        Default: 5.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same learning rate and weight decay.

    Raises:
      ValueError: `update` was called without params.

    Source: Gong et al., "Towards Efficient Optimizer Design for LLM via Structured Fisher
    Approximation with a Low-Rank Extension", arXiv:2502.07752.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.racs(1.0, beta=0.0)
      >>> params = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
      >>> g = {"w": jnp.array([[2.0, -4.0], [1.0, 2.0]]), "b": jnp.ones(2)}
      >>> print(tx.update(g, tx.init(params), params)[0]["w"].round(3))
      [[-0.05  0.05]
       [-0.05 -0.05]]
    """
    of_matrices = chain(
        scale_by_racs(beta, gamma, iterations, weight_dimension_numbers=weight_dimension_numbers),
        scale(alpha),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, weight_decay=weight_decay, mask=mask)
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)
