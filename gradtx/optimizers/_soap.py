"""SOAP: Adam in the eigenbases of Shampoo's preconditioner."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._roles import Count, Slot, Statistic, Tally, UnsignedStatistic, declared
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
from gradtx.engine.numerics import abs_sq, ema, over, ratio
from gradtx.engine.rules import Slots
from gradtx.matrices.bases import Bases, BasisMethod, first_bases, next_bases, without_choice
from gradtx.matrices.blocks import in_blocks
from gradtx.matrices.guard import guarded
from gradtx.matrices.matrixwise import matrixwise
from gradtx.matrices.renewal import next_ages, renewed
from gradtx.matrices.sides import (
    next_moment,
    rotated,
    rotated_back,
    sizes,
    stored_dtype,
)
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._matrices import from_second_step
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight

SOAP = "Vyas et al., 'SOAP: Improving and Stabilizing Shampoo using Adam', arXiv:2409.11321"


@declared
class ScaleBySoapState(NamedTuple):
    """The state of `scale_by_soap`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: for each leaf, moving average of squares of gradients in the eigenbases, for each matrix
        `[rows, columns]`, of which neither is longer if it was transposed.
      left: moving average of `g @ g.H`, for each matrix `[rows, rows]`.
      right: moving average of `g.H @ g`, for each matrix `[columns, columns]`.
      left_basis: the eigenbasis of `left`, in columns.
      right_basis: the eigenbasis of `right`, in columns.
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
    ranks: Statistic
    age: Statistic
    rejected: Tally


@functools.partial(piece, constants=("precondition_frequency",))
def scale_by_soap(
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    shampoo_beta: Scalar | None = None,
    eps: Scalar = 1e-8,
    precondition_frequency: int = 10,
    *,
    max_dim: int | None = 10_000,
    block_size: int | None = None,
    eigenbasis: BasisMethod = "qr",
    skip_first: bool = False,
    eps_before_correction: bool = False,
    stagger: bool = False,
    statistics_dtype: DTypeLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Applies Adam in the eigenbases of the second moments of rows and columns.

    With `t` 1 at the first step, and eigenbases `ql` and `qr` of both sides::

        mu = b1*mu + (1-b1)*g;   nu = b2*nu + (1-b2)*abs(ql.H @ g @ qr)**2
        update = ql @ (ql.H @ (mu / (1-b1**t)) @ qr / (sqrt(nu / (1-b2**t)) + eps)) @ qr.H
        left = beta*left + (1-beta)*(g @ g.H);   right = beta*right + (1-beta)*(g.H @ g)

    Then, at the first step and every `precondition_frequency` steps, `ql` and `qr` are computed
    from `left` and `right`, as the factor `q` of `q @ r = left @ ql`, with the columns of `ql` and
    `nu` sorted by decreasing `diag(ql.H @ left @ ql)`.

    Where `left` or `right` has a null space, as after the first gradient of a matrix that is not
    square, its eigenvectors are arbitrary: `nu` is replaced by its mean over them, so that updates
    do not depend on the choice. The next basis is then computed by an eigendecomposition, as the
    first is. Before the first step everything is null space, and so the first update is the
    gradient divided by its root mean square. The paper leaves the first step open.

    A matrix whose gradient is not finite, or so large that its squares are not, counts as having a
    gradient of zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are
    returned as they are, for `gradtx.apply_if_finite` to find. Tensors with more than two axes are
    matrices by `weight_dimension_numbers`, that is, they have two bases, not one for each axis.
    Derivatives treat bases as constants.

    Args:
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.95.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.95.
      shampoo_beta: decay rate of `left` and `right`, the `beta` above, in [0, 1). Default: `b2`.
      eps: added to the root. Default: 1e-8.
      precondition_frequency: the number of steps for which eigenbases are kept, a Python integer,
        at least 1. Default: 10.
      max_dim: the length of the longest side that has an eigenbasis; a longer one keeps its own
        coordinates. `None` for no limit. Default: 10,000.
      block_size: the longest side of the blocks into which large matrices are divided, each with
        its own bases; a division with a rest is filled up with zeros, which count in means over
        null spaces. Default: `None`, matrices are not divided.
      eigenbasis: "qr", or "eigh" for eigendecompositions at all times. Default: "qr".
      skip_first: whether the first step, as in the authors' program, only computes bases: the
        update is 0, and `mu`, `nu` and `t` stay as they are. Default: False.
      eps_before_correction: whether, as in the authors' program, `eps` is added to `sqrt(nu)`
        before the correction by `1-b2**t`. Default: False.
      stagger: whether each step computes the bases of some of the matrices of a shape, those
        that are oldest, instead of all of them every few steps. Which ones depends on how the
        matrices are divided over devices. Default: False.
      statistics_dtype: the dtype in which `left`, `right` and their bases are stored. Default: that
        of the parameters, and float32 for half precision; those of complex parameters always are in
        theirs.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: `eigenbasis` is unknown, or a leaf is not a matrix and has no dimension numbers.

    Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321,
    Algorithms 3 and 4.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_soap()
      >>> g = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> u, state = tx.update(g, tx.init(g))
      >>> print(*[f"{x:.3f}" for x in jnp.diag(tx.update(g, state)[0])])
      1.242 0.760
    """
    beta = b2 if shampoo_beta is None else shampoo_beta

    def init(p: Array) -> Slots:
        n, real = p.shape[0], jnp.finfo(p.dtype).dtype
        dtype, (left, right) = stored_dtype(p, statistics_dtype), sizes(p.shape, max_dim)
        left_basis, right_basis, ranks = first_bases(n, (left, right), dtype)
        return Slots(
            mu=jnp.zeros_like(p),
            nu=jnp.zeros(p.shape, real),
            left=jnp.zeros((n, left, left), dtype),
            right=jnp.zeros((n, right, right), dtype),
            left_basis=left_basis,
            right_basis=right_basis,
            ranks=ranks,
            age=jnp.zeros((n,), jnp.int32),
            rejected=jnp.zeros((n,), jnp.int32),
        )

    def per_step(step: Array) -> dict[str, Array]:
        t = step if skip_first else step + 1
        of_mu, of_nu = (jnp.where(t > 0, gathered_weight(b, t), 1) for b in (b1, b2))
        return {"of_mu": of_mu, "of_nu": of_nu}

    @guarded
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        ql, qr = s.left_basis.astype(g.dtype), s.right_basis.astype(g.dtype)
        mu = ema(g, s.mu, b1)
        nu = without_choice(ema(abs_sq(rotated(ql, g, qr)), s.nu, b2), s.ranks, (ql, qr))
        added = eps / jnp.sqrt(s.of_nu) if eps_before_correction else eps
        m = rotated(ql, over(mu, s.of_mu), qr)
        u = rotated_back(ql, ratio(m, over(nu, s.of_nu), added), qr)
        if skip_first:
            u, mu, nu = (jnp.where(step > 0, x, y) for x, y in ((u, 0), (mu, s.mu), (nu, s.nu)))
        left, right = next_moment(s.left, g, 1, beta), next_moment(s.right, g, 2, beta)
        bases, bad = renewed(
            functools.partial(next_bases, method=eigenbasis),
            (left, right),
            Bases((ql, qr), s.ranks, (nu,)),
            step,
            precondition_frequency,
            ages=s.age if stagger else None,
        )
        return u, Slots(
            mu=mu,
            nu=bases.squares[0],
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
        ScaleBySoapState, first, rule, axes=weight_dimension_numbers, lying=True,
        per_step=per_step, argument="weight_dimension_numbers", name="scale_by_soap",
    )  # fmt: skip


@optimizer(
    SOAP,
    family="Shampoo",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "precondition_frequency": 3},
    usual_rate=0.003,
    constants=("precondition_frequency",),
)
def soap(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    shampoo_beta: Scalar | None = None,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: MaskOrFn | None = None,
    precondition_frequency: int = 10,
    *,
    max_dim: int | None = 10_000,
    block_size: int | None = None,
    eigenbasis: BasisMethod = "qr",
    skip_first: bool = False,
    eps_before_correction: bool = False,
    stagger: bool = False,
    statistics_dtype: DTypeLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """SOAP: Adam in the eigenbases of Shampoo's preconditioner, and AdamW for all other leaves.

    `p - learning_rate * (u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_soap`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.95.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.95.
      shampoo_beta: decay rate of the second moments of rows and columns, in [0, 1). Default: `b2`.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. The authors' program decays the parameters after the step instead of
        before, which differs by `learning_rate * weight_decay` times the step. Default: 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      precondition_frequency: the number of steps for which eigenbases are kept, a Python integer,
        at least 1. Default: 10.
      max_dim: the length of the longest side that has an eigenbasis; `None` for no limit. Default:
        10,000.
      block_size: the longest side of the blocks into which large matrices are divided. Default:
        `None`, they are not divided.
      eigenbasis: "qr" for power iterations from the last basis, or "eigh". Default: "qr".
      skip_first: whether the first step, as in the authors' program, only computes bases, and
        neither moves nor decays matrices. Default: False.
      eps_before_correction: whether, as in the authors' program, `eps` is added before the bias
        correction. Default: False.
      stagger: whether each step computes the bases of some of the matrices of a shape, those that
        are oldest. Default: False.
      statistics_dtype: the dtype in which second moments of rows and columns, and their eigenbases,
        are stored. Default: that of the parameters, and float32 for half precision.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same hyperparameters; it also takes the first step with `skip_first`.

    Raises:
      ValueError: `eigenbasis` is unknown, or `update` was called without params.

    Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.soap(0.1, weight_decay=0.0)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update({"w": 3 * jnp.eye(2), "b": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["w"].round(3))
      [[-0.141 -0.   ]
       [-0.    -0.141]]
    """
    of_matrices = chain(
        scale_by_soap(
            b1,
            b2,
            shampoo_beta,
            eps,
            precondition_frequency,
            max_dim=max_dim,
            block_size=block_size,
            eigenbasis=eigenbasis,
            skip_first=skip_first,
            eps_before_correction=eps_before_correction,
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
