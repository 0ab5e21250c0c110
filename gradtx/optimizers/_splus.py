"""SPlus: signs of momentum in the eigenbases of Shampoo's preconditioner."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._roles import Count, Slot, Statistic, Tally, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    MaskOrFn,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import abs_sq, ema, ratio
from gradtx.engine.rules import Slots
from gradtx.linear_algebra.eigenbases import rounding
from gradtx.matrices.bases import Bases, BasisMethod, first_bases, next_bases, without_choice
from gradtx.matrices.blocks import in_blocks
from gradtx.matrices.guard import guarded
from gradtx.matrices.layout import Layout
from gradtx.matrices.matrixwise import matrixwise
from gradtx.matrices.renewal import next_ages, renewed
from gradtx.matrices.sides import next_moment, rotated, rotated_back, sizes, stored_dtype
from gradtx.optimizers._sign import scale_by_sign
from gradtx.transforms.averaging import ema as momentum
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.scaling import scale, scale_by_learning_rate

SPLUS = (
    "Frans et al., 'A Stable Whitening Optimizer for Efficient Neural Network Training', "
    "arXiv:2506.07254"
)


@declared
class ScaleBySPlusState(NamedTuple):
    """The state of `scale_by_splus`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      left: for each leaf, moving average of `g @ g.H`, for each matrix `[rows, rows]`. Tall
        matrices are transposed.
      right: moving average of `g.H @ g`, for each matrix `[columns, columns]`.
      left_basis: the eigenbasis of `left`, in columns.
      right_basis: the eigenbasis of `right`, in columns.
      ranks: the numbers of eigenvalues that were not 0 when the two bases were computed.
      age: for each matrix, the number of steps since then, if `stagger` is set.
      rejected: for each matrix, the number of gradients and bases that were not finite.
    """

    count: Count
    mu: Slot
    left: Statistic
    right: Statistic
    left_basis: Statistic
    right_basis: Statistic
    ranks: Statistic
    age: Statistic
    rejected: Tally


@functools.partial(piece, constants=("precondition_frequency",))
def scale_by_splus(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    precondition_frequency: int = 100,
    *,
    max_dim: int | None = 10_000,
    block_size: int | None = None,
    eigenbasis: BasisMethod = "eigh",
    stagger: bool = False,
    statistics_dtype: DTypeLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Replaces momentum by its signs in the eigenbases of rows' and columns' second moments.

    With eigenbases `ql` and `qr` of both sides::

        mu = b1*mu + (1-b1)*g
        update = ql @ sign(ql.H @ mu @ qr) @ qr.H
        left = b2*left + (1-b2)*(g @ g.H);   right = b2*right + (1-b2)*(g.H @ g)

    Then, at the first step and every `precondition_frequency` steps, `ql` and `qr` are computed
    from `left` and `right`. The sign of a complex number is its phase, and coordinates that are
    nothing but rounding errors have the sign 0.

    Where `left` or `right` has a null space, as after the first gradient of a matrix that is not
    square, its eigenvectors are arbitrary. Coordinates there are divided by their root mean square
    instead of by their magnitudes, so that updates do not depend on the choice. Before the first
    step everything is null space, and so the first update is the momentum divided by its root mean
    square; the authors' program takes its signs.

    A matrix whose gradient is not finite, or so large that its squares are not, counts as having a
    gradient of zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are
    returned as they are, for `gradtx.apply_if_finite` to find. Tensors with more than two axes are
    matrices by `weight_dimension_numbers`. Derivatives treat bases as constants.

    Args:
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of `left` and `right`, in [0, 1). Default: 0.999.
      precondition_frequency: the number of steps for which eigenbases are kept, a Python integer,
        at least 1. Default: 100.
      max_dim: the length of the longest side that has an eigenbasis; a longer one keeps its own
        coordinates. `None` for no limit. Default: 10,000.
      block_size: the longest side of the blocks into which large matrices are divided. Default:
        `None`, they are not divided.
      eigenbasis: "eigh", or "qr" for power iterations from the last basis. Default: "eigh".
      stagger: whether each step computes the bases of some of the matrices of a shape, those that
        are oldest. Default: False.
      statistics_dtype: the dtype in which `left`, `right` and their bases are stored. Default: that
        of the parameters, and float32 for half precision.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: a leaf is not a matrix and has no dimension numbers.

    Source: Frans et al., "A Stable Whitening Optimizer for Efficient Neural Network Training",
    arXiv:2506.07254.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_splus()
      >>> g = jnp.array([[3.0, 0.0], [0.0, -1.0]])
      >>> _, state = tx.update(g, tx.init(g))
      >>> print(tx.update(g, state)[0])
      [[ 1.  0.]
       [ 0. -1.]]
    """

    def init(p: Array) -> Slots:
        n, dtype = p.shape[0], stored_dtype(p, statistics_dtype)
        left, right = sizes(p.shape, max_dim)
        left_basis, right_basis, ranks = first_bases(n, (left, right), dtype)
        return Slots(
            mu=jnp.zeros_like(p),
            left=jnp.zeros((n, left, left), dtype),
            right=jnp.zeros((n, right, right), dtype),
            left_basis=left_basis,
            right_basis=right_basis,
            ranks=ranks,
            age=jnp.zeros((n,), jnp.int32),
            rejected=jnp.zeros((n,), jnp.int32),
        )

    @guarded
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        ql, qr = s.left_basis.astype(g.dtype), s.right_basis.astype(g.dtype)
        mu = ema(g, s.mu, b1)
        u = rotated_back(ql, _signs(rotated(ql, mu, qr), s.ranks, (ql, qr)), qr)
        left, right = next_moment(s.left, g, 1, b2), next_moment(s.right, g, 2, b2)
        bases, bad = renewed(
            functools.partial(next_bases, method=eigenbasis),
            (left, right),
            Bases((ql, qr), s.ranks, ()),
            step,
            precondition_frequency,
            ages=s.age if stagger else None,
        )
        return u, Slots(
            mu=mu,
            left=left,
            right=right,
            left_basis=bases.vectors[0],
            right_basis=bases.vectors[1],
            ranks=bases.ranks,
            age=next_ages(s.age, step, precondition_frequency) if stagger else s.age,
            rejected=s.rejected + bad,
        )

    first, rule = in_blocks(init, update, block_size, ("mu",))
    return matrixwise(
        ScaleBySPlusState, first, rule, axes=weight_dimension_numbers, lying=True,
        argument="weight_dimension_numbers", name="scale_by_splus",
    )  # fmt: skip


def _signs(m: Array, ranks: Array, vectors: tuple[Array, Array]) -> Array:
    """Returns coordinates over their magnitudes, or over their root mean square in null spaces."""
    size = jnp.max(jnp.abs(m), (1, 2), keepdims=True)
    unit = m / jnp.where(size > 0, size, 1).astype(m.dtype)
    resolved = jnp.abs(unit) > rounding(max(m.shape[1:]), size.dtype)
    unit = jnp.where(resolved, unit, 0)
    return ratio(unit, without_choice(abs_sq(unit), ranks, vectors), 0.0)


@optimizer(
    SPLUS,
    family="Shampoo",
    acts_on="matrices",
    probe={"learning_rate": 0.2, "precondition_frequency": 3, "nonstandard_constant": 0.1},
    usual_rate=0.2,
    constants=("precondition_frequency",),
)
def splus(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: MaskOrFn | None = None,
    precondition_frequency: int = 100,
    *,
    nonstandard_constant: Scalar = 0.001,
    max_dim: int | None = 10_000,
    block_size: int | None = None,
    eigenbasis: BasisMethod = "eigh",
    stagger: bool = False,
    statistics_dtype: DTypeLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """SPlus: signs of momentum in Shampoo's eigenbases, and of momentum itself for other leaves.

    `p - learning_rate * f * (u + weight_decay * p)`, where `u` is the update of `scale_by_splus`
    and `f = 2 / (rows + columns)` for a matrix; for other leaves `u = sign(mu)` and
    `f = nonstandard_constant`.

    The paper evaluates an average of the parameters, `e = 0.999*e + 0.001*p` with bias correction;
    `chain(splus(...), params_ema(0.999))` keeps one, with a warm-up instead of that correction.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the second moments of rows and columns, in [0, 1). Default: 0.999.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate and `f` multiply it. The authors' program decays the parameters after the step instead
        of before. Default: 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      precondition_frequency: the number of steps for which eigenbases are kept, a Python integer,
        at least 1. Default: 100.
      nonstandard_constant: the factor `f` of leaves that are not matrices. Default: 0.001.
      max_dim: the length of the longest side that has an eigenbasis; `None` for no limit. Default:
        10,000.
      block_size: the longest side of the blocks into which large matrices are divided. Default:
        `None`, they are not divided.
      eigenbasis: "eigh", or "qr" for power iterations from the last basis. Default: "eigh".
      stagger: whether each step computes the bases of some of the matrices of a shape, those that
        are oldest. Default: False.
      statistics_dtype: the dtype in which second moments of rows and columns, and their eigenbases,
        are stored. Default: that of the parameters, and float32 for half precision.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: as
        above.

    Raises:
      ValueError: `update` was called without params.

    Source: Frans et al., "A Stable Whitening Optimizer for Efficient Neural Network Training",
    arXiv:2506.07254.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.splus(0.1, weight_decay=0.0)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update({"w": 3 * jnp.eye(2), "b": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["b"])
      [-0.0001 -0.0001]
    """

    def factor(u: Array, layout: Layout) -> Array:
        return u * (2 / (layout.rows + layout.columns))

    def unchanged(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        return g, Slots()

    of_matrices = chain(
        scale_by_splus(
            b1,
            b2,
            precondition_frequency,
            max_dim=max_dim,
            block_size=block_size,
            eigenbasis=eigenbasis,
            stagger=stagger,
            statistics_dtype=statistics_dtype,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        add_decayed_weights(weight_decay, mask),
        matrixwise(
            EmptyState,
            None,
            unchanged,
            axes=weight_dimension_numbers,
            after=factor,
            argument="weight_dimension_numbers",
            name="splus",
        ),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = chain(
            momentum(b1, debias=False),
            scale_by_sign(),
            add_decayed_weights(weight_decay, mask),
            scale(nonstandard_constant),
            scale_by_learning_rate(learning_rate),
        )
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)
