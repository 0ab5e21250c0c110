"""Conda: Adam in the basis of the singular vectors of momentum."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

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
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times
from gradtx.engine.rules import Slots
from gradtx.linear_algebra.singular_vectors import left_singular_vectors
from gradtx.matrices.bases import without_choice
from gradtx.matrices.guard import guarded
from gradtx.matrices.matrixwise import matrixwise
from gradtx.matrices.renewal import renewed
from gradtx.matrices.sides import identities, product
from gradtx.optimizers._adam import adamw
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight, step_number

CONDA = (
    "Wang et al., 'Conda: Column-Normalized Adam for Training Large Language Models Faster', "
    "arXiv:2509.24218"
)


@declared
class ScaleByCondaState(NamedTuple):
    """The state of `scale_by_conda`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: for each leaf, moving average of squares of gradients in the basis, for each matrix
        `[rows, columns]`. Tall matrices are transposed.
      basis: the left singular vectors of `mu`, in columns, for each matrix `[rows, rows]`.
      rank: for each matrix, the number of singular values that were not 0.
      rejected: for each matrix, the number of gradients and bases that were not finite.
    """

    count: Count
    mu: Slot
    nu: UnsignedStatistic
    basis: Statistic
    rank: Statistic
    rejected: Tally


@piece
def scale_by_conda(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    update_proj_gap: Scalar = 2000,
    scale: Scalar = 1.0,
    *,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Applies Adam in the basis of the left singular vectors of momentum.

    With `t` 1 at the first step, and the singular vectors `u` of `mu = u @ s @ v.H`::

        mu = b1*mu + (1-b1)*g;   nu = b2*nu + (1-b2)*abs(u.H @ g)**2
        update = scale * u @ (u.H @ (mu / (1-b1**t)) / (sqrt(nu / (1-b2**t)) + eps))

    where `u` is computed from `mu` at the first step and every `update_proj_gap` steps. Matrices
    with more rows than columns are transposed before and after, so that the basis is that of the
    shorter side. The authors' program takes the other side of square matrices, and adds `eps`
    before the correction by `1-b2**t`.

    Where `mu` does not have full rank, `nu` is replaced by its mean over the singular vectors of
    singular value 0, which are arbitrary, so that updates do not depend on the choice. A matrix
    whose gradient is not finite, or so large that its squares are not, counts as having a gradient
    of zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are returned as
    they are, for `gradtx.apply_if_finite` to find. Derivatives treat bases as constants.

    Args:
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.999.
      eps: added to the root. Default: 1e-8.
      update_proj_gap: the number of steps for which the basis is kept, an integer, at least 1.
        Default: 2,000.
      scale: the factor of the updates of matrices. Default: 1.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: a leaf is not a matrix and has no dimension numbers.

    Source: Wang et al., "Conda: Column-Normalized Adam for Training Large Language Models Faster",
    arXiv:2509.24218.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_conda()
      >>> g = jnp.array([[3.0, 4.0], [0.0, 0.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[1. 1.]
       [0. 0.]]
    """

    def init(p: Array) -> Slots:
        n, rows, _ = p.shape
        return Slots(
            mu=jnp.zeros_like(p),
            nu=jnp.zeros(p.shape, jnp.finfo(p.dtype).dtype),
            basis=identities(n, rows, p.dtype),
            rank=jnp.zeros((n,), jnp.int32),
            rejected=jnp.zeros((n,), jnp.int32),
        )

    def per_step(step: Array) -> dict[str, Array]:
        t = step_number(step)
        return {"of_mu": gathered_weight(b1, t), "of_nu": gathered_weight(b2, t)}

    def singular(mu: Array, old: tuple[Array, Array]) -> tuple[Array, Array]:
        return left_singular_vectors(lax.stop_gradient(mu))

    @guarded
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        old = s.basis.astype(g.dtype), s.rank
        (basis, rank), bad = renewed(singular, mu, old, step, update_proj_gap)
        back = basis.mT.conj()
        nu = ema(abs_sq(product(back, g)), s.nu, b2)
        ranks, vectors = jnp.stack([rank, rank], 1), (basis, jnp.zeros((len(g), 0, 0), g.dtype))
        nu = without_choice(nu, ranks, vectors)
        u = ratio(product(back, over(mu, s.of_mu)), over(nu, s.of_nu), eps)
        rejected = s.rejected + bad
        return times(scale, product(basis, u)), Slots(
            mu=mu, nu=nu, basis=basis, rank=rank, rejected=rejected
        )

    return matrixwise(
        ScaleByCondaState, init, update, axes=weight_dimension_numbers, lying=True,
        per_step=per_step, argument="weight_dimension_numbers", name="scale_by_conda",
    )  # fmt: skip


@optimizer(
    CONDA,
    family="Shampoo",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "update_proj_gap": 5},
    usual_rate=0.001,
)
def conda(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    update_proj_gap: Scalar = 2000,
    scale: Scalar = 1.0,
    *,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """Conda: Adam in the basis of momentum's singular vectors, and AdamW for all other leaves.

    `p - learning_rate * (u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_conda`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.999.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      update_proj_gap: the number of steps for which the basis is kept, an integer, at least 1.
        Default: 2,000.
      scale: the factor of the updates of matrices. Default: 1.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same hyperparameters.

    Raises:
      ValueError: `update` was called without params.

    Source: Wang et al., "Conda: Column-Normalized Adam for Training Large Language Models Faster",
    arXiv:2509.24218.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.conda(0.1)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update({"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["b"].round(3))
      [-0.1 -0.1]
    """
    of_matrices = chain(
        scale_by_conda(
            b1,
            b2,
            eps,
            update_proj_gap,
            scale,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)
