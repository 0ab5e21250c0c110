"""Alice: Adam in a low-rank eigenbasis of second moments, with what that discards compensated."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx._arguments import POSITIVE
from gradtx._roles import Count, RandomKey, Statistic, Tally, UnsignedStatistic, declared
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
from gradtx.engine.numerics import abs_sq, ema, ratio, times, value_of
from gradtx.engine.rules import Slots
from gradtx.linear_algebra.decompositions import eigh, qr
from gradtx.linear_algebra.eigenbases import rounding, within_range
from gradtx.linear_algebra.singular_vectors import left_singular_vectors, turned_to
from gradtx.matrices.guard import guarded
from gradtx.matrices.matrixwise import matrixwise
from gradtx.matrices.projections import first_moments, into, limited, on_wide
from gradtx.matrices.sides import AXES, product
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._racs import RACS
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.noise import as_key
from gradtx.transforms.scaling import scale, scale_by_learning_rate
from gradtx.tree.norms import norms

RANGES = {"gamma": POSITIVE}


@declared
class ScaleByAliceState(NamedTuple):
    """The state of `scale_by_alice`.

    Attributes:
      count: the number of steps taken.
      mu: for each leaf, moving average of projected gradients, for each matrix `[rank, columns]`,
        or `[rows, rank]` if it has more rows than columns.
      nu: moving average of their squares.
      projector: the basis of each matrix, in columns, `[shorter side, rank]`.
      tracked: moving average of the second moments of projected gradients, `[rank, rank]`.
      discarded: moving average of the squared norms of what the projection discards, for each
        matrix `[longer side]`.
      norm: the norm of the last compensation of each matrix.
      rejected: for each matrix, the number of gradients that were not finite.
      rng_key: the random key of the next step.
    """

    count: Count
    mu: Statistic
    nu: UnsignedStatistic
    projector: Statistic
    tracked: Statistic
    discarded: UnsignedStatistic
    norm: UnsignedStatistic
    rejected: Tally
    rng_key: RandomKey


@functools.partial(piece, ranges=RANGES)
def scale_by_alice(
    rank: int = 256,
    leading: int = 40,
    update_proj_gap: Scalar = 200,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9,
    b3: Scalar = 0.999,
    compensation: Scalar = 0.4,
    gamma: Scalar | None = 1.01,
    *,
    key: int | Array | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Applies Adam in the leading eigenbasis of second moments, and scales the rest by columns.

    For matrices of `m` rows and no more rows than columns, with the basis `U`, `[m, rank]`::

        r = U.H @ g;   tracked = b3*tracked + (1-b3) * r @ r.H
        mu = b1*mu + (1-b1)*r;   nu = b2*nu + (1-b2)*abs(r)**2
        rest = g - U @ r;   discarded = b1*discarded + (1-b1)*sum(abs(rest)**2, over rows)
        c = sqrt(m - rank) * rest / sqrt(discarded)
        c = c * min(1, gamma * norm / |c|);   norm = |c|
        update = U @ (mu / sqrt(nu)) + compensation * c

    There is no bias correction. Tall matrices are transposed before and after. At the first step,
    and at those whose number, 1 for the first, is a multiple of `update_proj_gap`, `U` is new,
    before `r` is computed: the `leading` first eigenvectors of `b3 * U @ tracked @ U.H + (1-b3) * g
    @ g.H` and, in place of the others, random orthonormal vectors that are orthogonal to all `rank`
    eigenvectors. At the first step the eigenvectors are exact; later ones are those of one subspace
    iteration from `U`, with the signs for which they are nearest to the vectors that they replace.
    Where rows are too few, `2*rank - m` eigenvectors remain.

    `tracked`, `mu` and `nu` stay as they are when `U` changes, as in the paper. There the random
    vectors are some of a basis of the complement, which is arbitrary; here that is a random one, so
    that updates do not depend on a decomposition's choice. Eigenvectors of zero are replaced by
    random vectors too. Components of `r`, and columns of `rest`, that are not larger than rounding
    errors are zeros. At the first step, and after a compensation of zeros, the norm is not limited.

    A matrix whose gradient is not finite, or so large that its squares are not, counts as having a
    gradient of zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are
    returned as they are, for `gradtx.apply_if_finite` to find. Derivatives treat `U` as a constant.

    Args:
      rank: the number of columns of `U`, at least 1, and the shorter side for matrices in which
        that is less. Default: 256.
      leading: the number of eigenvectors among them, at least 1; `rank` or more for no random
        vectors. Default: 40.
      update_proj_gap: the number of steps for which `U` is kept, at least 1. Default: 200.
      b1: decay rate of the averages of gradients and of `discarded`, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.9.
      b3: decay rate of the second moments, in [0, 1); with 0, the method is the paper's Alice-0.
        Default: 0.999.
      compensation: the factor of the rest, not negative. Default: 0.4.
      gamma: the largest factor by which the norm of a compensation grows from step to step,
        positive; `None` for no limit. Default: 1.01.
      key: a random key of JAX, or a seed. Default: the seed 0.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: `key` holds several keys, or a leaf is not a matrix and has no dimension numbers.

    Source: Gong et al., "Towards Efficient Optimizer Design for LLM via Structured Fisher
    Approximation with a Low-Rank Extension", arXiv:2502.07752, Algorithms 2 to 4.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_alice(rank=1, b1=0.0, b2=0.0, compensation=0.5)
      >>> g = jnp.array([[3.0, 0.0], [0.0, -2.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[ 1.   0. ]
       [ 0.  -0.5]]
    """

    def init(p: Array, keys: Array) -> Slots:
        slots = first_moments(p, rank)
        n, _, size = slots["projector"].shape
        real = jnp.finfo(p.dtype).dtype
        return Slots(
            **slots,
            tracked=jnp.zeros((n, size, size), p.dtype),
            discarded=jnp.zeros((n, max(p.shape[1:])), real),
        )

    @guarded
    @on_wide
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        rows, size = s.projector.shape[1:]
        gap = value_of(update_proj_gap)
        switches = (step == 0) | (step % gap == gap - 1)
        projector = lax.cond(
            switches,
            lambda: _switched(lax.stop_gradient(g), s, step, b3, leading),
            lambda: s.projector,
        )
        r = _nonzero(into(projector, g), 2, g, AXES)
        mu, nu = ema(r, s.mu, b1), ema(abs_sq(r), s.nu, b2)
        rest = _nonzero(g - product(projector, r), 1, g, (1,))
        discarded = ema(jnp.sum(abs_sq(rest), 1), s.discarded, b1)
        square = jnp.broadcast_to(discarded[:, None, :], g.shape)
        c, norm = limited((rows - size) ** 0.5 * ratio(rest, square, 0.0), s.norm, gamma)
        return product(projector, ratio(mu, nu, 0.0)) + times(compensation, c), Slots(
            mu=mu,
            nu=nu,
            projector=projector,
            tracked=ema(product(r, r.mT.conj()), s.tracked, b3),
            discarded=discarded,
            norm=norm,
            rejected=s.rejected,
        )

    return matrixwise(
        ScaleByAliceState, init, update, axes=weight_dimension_numbers,
        key=as_key(key, None, "scale_by_alice"),
        argument="weight_dimension_numbers", name="scale_by_alice",
    )  # fmt: skip


def _nonzero(x: Array, axis: int, g: Array, axes: tuple[int, ...]) -> Array:
    """Returns rows or columns of a product with `g`, and zeros for those that are rounding errors.

    Args:
      x: the product.
      axis: the axis along which norms are compared, 2 for rows and 1 for columns.
      g: the gradients.
      axes: the axes of the norms of `g` with which they are compared.
    """
    size, whole = norms(x, axis=(axis,))[0], norms(g, axis=axes)[0]
    return jnp.where(size > rounding(g.shape[1], size.dtype) * whole, x, 0)


def _switched(g: Array, s: Slots, step: Array, b3: Scalar, leading: int) -> Array:
    """Returns the next bases: leading eigenvectors, and random vectors orthogonal to them."""
    old, tracked = lax.stop_gradient((s.projector, s.tracked))
    rows, size = old.shape[1:]

    def moment(x: Array) -> Array:
        past = product(old, product(tracked, into(old, x)))
        found = times(b3, past) + times(1 - b3, product(g, into(g, x)))
        return lax.stop_gradient(found)

    def first() -> tuple[Array, Array]:
        vectors, rank = left_singular_vectors(g)
        return vectors[:, :, :size], rank

    def later() -> tuple[Array, Array]:
        q, _ = qr(within_range(moment(old)))
        values, w = eigh(within_range(into(q, moment(q))))
        rank = jnp.sum(values > values[:, -1:] * rounding(rows, values.dtype), 1, dtype=jnp.int32)
        return product(q, jnp.flip(w, -1)), rank

    vectors, rank = lax.cond(step == 0, first, later)
    number = jnp.arange(size)
    known = (number < rank[:, None])[:, None, :]
    vectors = jnp.where(known, turned_to(vectors, old), 0)
    # Of `rows - size` vectors of the complement, at most as many can be drawn.
    stays = known & (number < max(leading, 2 * size - rows))
    draw = functools.partial(jax.random.normal, shape=(rows, size), dtype=g.dtype)
    draws = jax.vmap(draw)(s.rng_key)
    for _ in range(2):  # once leaves rounding errors that a short rest does not hide
        draws = draws - product(vectors, into(vectors, draws))
    q, triangle = qr(jnp.where(stays, vectors, draws))
    diagonal = jnp.diagonal(triangle, axis1=1, axis2=2)[:, None, :]
    length = jnp.abs(diagonal)
    # with a positive diagonal the factor is unique, and its first columns are the eigenvectors
    q = q * (diagonal / jnp.where(length > 0, length, 1))
    usable = (rank > 0) & jnp.all(jnp.isfinite(q), AXES)
    return jnp.where(usable[:, None, None], q, old).astype(old.dtype)


@optimizer(
    RACS,
    family="low rank",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "rank": 2, "leading": 1, "update_proj_gap": 5},
    usual_rate=0.02,
    ranges={**RANGES, "alpha": POSITIVE},
)
def alice(
    learning_rate: ScalarOrSchedule,
    rank: int = 256,
    leading: int = 40,
    update_proj_gap: Scalar = 200,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9,
    b3: Scalar = 0.999,
    alpha: Scalar = 0.3,
    compensation: Scalar = 0.4,
    gamma: Scalar | None = 1.01,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    key: int | Array | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """Alice: Adam in low-rank eigenbases of matrices with the rest compensated, else AdamW.

    `p - learning_rate * (alpha * u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_alice`, and AdamW for all other leaves.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      rank: the number of vectors of the basis, at least 1. Default: 256.
      leading: the number of eigenvectors among them, at least 1. Default: 40.
      update_proj_gap: the number of steps for which a basis is kept, at least 1. Default: 200.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.9.
      b3: decay rate of the second moments, in [0, 1); with 0, the method is the paper's Alice-0.
        Default: 0.999.
      alpha: the factor of the updates of matrices; positive. Default: 0.3.
      compensation: the factor of the rest, not negative. Default: 0.4.
      gamma: the largest factor by which the norm of a compensation grows from step to step,
        positive; `None` for no limit. Default: 1.01.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      key: a random key of JAX, or a seed. Default: the seed 0.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same learning rate, weight decay and mask.

    Raises:
      ValueError: `key` holds several keys, or `update` was called without params.

    Source: Gong et al., "Towards Efficient Optimizer Design for LLM via Structured Fisher
    Approximation with a Low-Rank Extension", arXiv:2502.07752.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.ones((64, 256)), "b": jnp.zeros(256)}
      >>> state = gradtx.alice(0.02, rank=4).init(params)
      >>> state.inner_states["matrices"].inner_state[0].tracked["w"].shape
      (1, 4, 4)
    """
    of_matrices = chain(
        scale_by_alice(
            rank,
            leading,
            update_proj_gap,
            b1,
            b2,
            b3,
            compensation,
            gamma,
            key=key,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        scale(alpha),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, weight_decay=weight_decay, mask=mask)
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)
