"""KL-SOAP: Adam in the eigenbases of KL-Shampoo."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from jax.typing import DTypeLike

from gradtx._arguments import POSITIVE
from gradtx._roles import Count, Slot, Statistic, Tally, UnsignedStatistic, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    GradientTransformation,
    MaskOrFn,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.leafwise import piece
from gradtx.matrices.bases import BasisMethod
from gradtx.matrices.divergence import fitted_to_divergence
from gradtx.matrices.matrixwise import matrixwise
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._kl_shampoo import KL
from gradtx.optimizers._matrices import from_second_step
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.scaling import scale_by_learning_rate


@declared
class ScaleByKLSoapState(NamedTuple):
    """The state of `scale_by_kl_soap`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: for each leaf, moving average of squares of gradients in the eigenbases, for each matrix
        `[rows, columns]`. Tall matrices are transposed.
      left: the covariance of the rows, for each matrix `[rows, rows]`.
      right: the covariance of the columns, for each matrix `[columns, columns]`.
      left_basis: the eigenbasis of `left`, in columns.
      right_basis: the eigenbasis of `right`, in columns.
      left_values: the moving average of the eigenvalues of `left`, for each matrix `[rows]`.
      right_values: that of the eigenvalues of `right`, for each matrix `[columns]`.
      ranks: the numbers of eigenvalues that were not 0 when the two bases were computed.
      age: for each matrix, the number of steps since then, if `stagger` is set.
      rejected: for each matrix, the number of gradients and bases that were not finite.
    """

    count: Count
    mu: Slot
    nu: UnsignedStatistic
    left: Statistic
    right: Statistic
    left_basis: Statistic
    right_basis: Statistic
    left_values: Statistic
    right_values: Statistic
    ranks: Statistic
    age: Statistic
    rejected: Tally


@functools.partial(
    piece,
    constants=("precondition_frequency",),
    ranges={"init_factor": POSITIVE, "max_clamp_value": POSITIVE},
)
def scale_by_kl_soap(
    b1: Scalar = 0.9,
    b2: Scalar = 0.98,
    shampoo_beta: Scalar | None = None,
    eps: Scalar = 1e-8,
    precondition_frequency: int = 10,
    *,
    init_factor: Scalar = 0.1,
    max_clamp_value: Scalar | None = None,
    max_dim: int | None = 10_000,
    block_size: int | None = None,
    eigenbasis: BasisMethod = "qr",
    skip_first: bool = False,
    stagger: bool = False,
    statistics_dtype: DTypeLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Applies Adam in the eigenbases of covariances that minimize a Kullback–Leibler divergence.

    With eigenbases `ql` and `qr` of both sides, and their eigenvalues `wl` and `wr`, columns that
    start at `init_factor`::

        mu = b1*mu + (1-b1)*g;   nu = b2*nu + (1-b2)*abs(ql.H @ g @ qr)**2
        update = ql @ (ql.H @ mu @ qr / (sqrt(nu) + eps)) @ qr.H
        left = beta*left + (1-beta) * g @ qr @ diag(1/wr) @ qr.H @ g.H / columns
        right = beta*right + (1-beta) * g.H @ ql @ diag(1/wl) @ ql.H @ g / rows
        wl = beta*wl + (1-beta) * mean(abs(ql.H @ g @ qr)**2 / wr.T, over columns)
        wr = beta*wr + (1-beta) * mean(abs(ql.H @ g @ qr)**2 / wl, over rows)

    each with the values of the last step on its right side. Then, at the first step and every
    `precondition_frequency` steps, `ql` and `qr` are computed from `left` and `right` as by
    `scale_by_soap`. There is no bias correction, as in the authors' program. Before the first step
    bases are the axes.

    In null spaces, whose bases are arbitrary, `nu`, `wl` and `wr` are replaced by their means, as
    in `scale_by_soap`, so that updates do not depend on the choice. A matrix whose gradient is not
    finite, or so large that its squares are not, counts as having a gradient of zeros; see
    `rejected` in `gradtx.metrics`. Its elements that are not finite are returned as they are, for
    `gradtx.apply_if_finite` to find. Tensors with more than two axes are matrices by
    `weight_dimension_numbers`. Derivatives treat bases as constants.

    Args:
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the averages of squares, in [0, 1). Default: 0.98.
      shampoo_beta: decay rate of the covariances and of their eigenvalues, in [0, 1). Default:
        `b2`.
      eps: added to the root. Default: 1e-8.
      precondition_frequency: the number of steps for which eigenbases are kept, a Python integer,
        at least 1. Default: 10.
      init_factor: the first eigenvalues; positive. Default: 0.1.
      max_clamp_value: the largest `1 / sqrt(value)` of a side of `d` rows is `max(10, min(d,
        max_clamp_value))`; 4,000 in the authors' program. Default: `None`, there is no limit, as in
        the paper.
      max_dim: the length of the longest side that has an eigenbasis; a longer one keeps its own
        coordinates, with their variances. `None` for no limit. Default: 10,000.
      block_size: the longest side of the blocks into which large matrices are divided. Default:
        `None`, they are not divided.
      eigenbasis: "qr" for power iterations from the last basis, or "eigh". Default: "qr".
      skip_first: whether the first step, as in the authors' program, only computes bases: those of
        `g @ g.H` and `g.H @ g`. Default: False.
      stagger: whether each step computes the bases of some of the matrices of a shape, those that
        are oldest. Default: False.
      statistics_dtype: the dtype in which covariances and eigenbases are stored. Default: that of
        the parameters, and float32 for half precision.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: a leaf is not a matrix and has no dimension numbers.

    Source: Lin et al., "Understanding and Improving Shampoo and SOAP via Kullback-Leibler
    Minimization", arXiv:2509.03378.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_kl_soap(b1=0.0)
      >>> g = jnp.array([[3.0, 0.0], [0.0, -1.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[13.416  0.   ]
       [ 0.    -4.472]]
    """
    first, rule = fitted_to_divergence(
        b1, b2, shampoo_beta, eps, precondition_frequency, init_factor, max_clamp_value, max_dim,
        block_size, eigenbasis, skip_first, stagger, statistics_dtype, adam=True,
    )  # fmt: skip
    axes = weight_dimension_numbers
    return matrixwise(
        ScaleByKLSoapState,
        first,
        rule,
        axes=axes,
        lying=True,
        argument="weight_dimension_numbers",
        name="scale_by_kl_soap",
    )


@optimizer(
    KL,
    family="Shampoo",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "precondition_frequency": 3},
    usual_rate=0.001,
    constants=("precondition_frequency",),
    ranges={"init_factor": POSITIVE, "max_clamp_value": POSITIVE},
)
def kl_soap(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.98,
    shampoo_beta: Scalar | None = None,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: MaskOrFn | None = None,
    precondition_frequency: int = 10,
    *,
    init_factor: Scalar = 0.1,
    max_clamp_value: Scalar | None = None,
    max_dim: int | None = 10_000,
    block_size: int | None = None,
    eigenbasis: BasisMethod = "qr",
    skip_first: bool = False,
    stagger: bool = False,
    statistics_dtype: DTypeLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """KL-SOAP: Adam in the eigenbases of KL-Shampoo.

    `p - learning_rate * (u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_kl_soap`, and AdamW for all other leaves.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the averages of squares, in [0, 1). Default: 0.98.
      shampoo_beta: decay rate of the covariances and of their eigenvalues, in [0, 1). Default:
        `b2`.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      precondition_frequency: the number of steps for which eigenbases are kept, a Python integer,
        at least 1. Default: 10.
      init_factor: the first eigenvalues; positive. Default: 0.1.
      max_clamp_value: the largest `1 / sqrt(value)` of a side of `d` rows is `max(10, min(d,
        max_clamp_value))`; 4,000 in the authors' program. Default: `None`, there is no limit, as in
        the paper.
      max_dim: the length of the longest side that has an eigenbasis; a longer one keeps its own
        coordinates, with their variances. `None` for no limit. Default: 10,000.
      block_size: the longest side of the blocks into which large matrices are divided. Default:
        `None`, they are not divided.
      eigenbasis: "qr" for power iterations from the last basis, or "eigh". Default: "qr".
      skip_first: whether the first step, as in the authors' program, only computes bases: those of
        `g @ g.H` and `g.H @ g`. Default: False.
      stagger: whether each step computes the bases of some of the matrices of a shape, those that
        are oldest. Default: False.
      statistics_dtype: the dtype in which covariances and eigenbases are stored. Default: that of
        the parameters, and float32 for half precision.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same hyperparameters; it also takes the first step with `skip_first`.

    Raises:
      ValueError: `update` was called without params.

    Source: Lin et al., "Understanding and Improving Shampoo and SOAP via Kullback-Leibler
    Minimization", arXiv:2509.03378.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.kl_soap(0.1, weight_decay=0.0)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update({"w": 3 * jnp.eye(2), "b": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["w"].round(3))
      [[-0.1 -0. ]
       [-0.  -0.1]]
    """
    of_matrices = chain(
        scale_by_kl_soap(
            b1,
            b2,
            shampoo_beta,
            eps,
            precondition_frequency,
            init_factor=init_factor,
            max_clamp_value=max_clamp_value,
            max_dim=max_dim,
            block_size=block_size,
            eigenbasis=eigenbasis,
            skip_first=skip_first,
            stagger=stagger,
            statistics_dtype=statistics_dtype,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        add_decayed_weights(from_second_step(weight_decay) if skip_first else weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)
