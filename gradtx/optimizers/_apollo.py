"""APOLLO: gradients scaled as Adam scales a low-rank projection of them."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
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
from gradtx.matrices.sides import AXES
from gradtx.optimizers._adam import adamw
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.noise import as_key
from gradtx.transforms.scaling import scale_by_learning_rate

APOLLO = "Zhu et al., 'APOLLO: SGD-like Memory, AdamW-level Performance', arXiv:2412.05270"
RANGES = {"gamma": POSITIVE}


@declared
class ScaleByApolloState(NamedTuple):
    """The state of `scale_by_apollo`.

    Attributes:
      count: the number of steps taken.
      mu: for each leaf, moving average of projected gradients, for each matrix `[rank, columns]`,
        or `[rows, rank]` if it has more rows than columns.
      nu: moving average of their squares.
      projector: the projector of each matrix, `[shorter side, rank]`.
      norm: the norm of the last update of each matrix, without `scale`.
      rejected: for each matrix, the number of gradients that were not finite.
      rng_key: the random key of the next step.
    """

    count: Count
    mu: Statistic
    nu: UnsignedStatistic
    projector: Statistic
    norm: UnsignedStatistic
    rejected: Tally
    rng_key: RandomKey


@functools.partial(piece, ranges=RANGES)
def scale_by_apollo(
    rank: int = 256,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    *,
    scaling: Literal["channel", "tensor"] = "channel",
    projection: Literal["random", "svd"] = "random",
    gamma: Scalar | None = 1.01,
    key: int | Array | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Scales gradients by the factors by which Adam scales a low-rank projection of them.

    For matrices with no more rows than columns, with `t` 1 at the first step, and the projector
    `P`, `[rows, rank]`::

        r = P.H @ g;   mu = b1*mu + (1-b1)*r;   nu = b2*nu + (1-b2)*abs(r)**2
        d = mu / (1-b1**t) / (sqrt(nu / (1-b2**t)) + eps)
        u = g * norm(d, each column) / norm(r, each column)
        u = u * min(1, gamma * last / norm(u));   last = norm(u);   update = scale * u

    Tall matrices are transposed before and after. Every `update_proj_gap` steps, from the first on,
    `P` is new: normal random numbers of variance `1 / rank`. Moments stay as they are. A column for
    which `r` is 0 has an update of 0. At the first step, and after an update of zeros, the norm is
    not limited.

    A matrix whose gradient is not finite, or so large that its squares are not, counts as having a
    gradient of zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are
    returned as they are, for `gradtx.apply_if_finite` to find. Derivatives treat `P` as a constant.

    Args:
      rank: the number of columns of `P`, at least 1, and the shorter side for matrices in which
        that is less. Default: 256.
      update_proj_gap: the number of steps for which `P` is kept, at least 1. Default: 200.
      scale: the factor of the updates, the paper's `alpha`. Default: 1.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.999.
      eps: added to the root. Default: 1e-6.
      scaling: "channel" for one factor for each column, or "tensor" for one for each matrix, the
        ratio of the norms of `d` and `r`. Default: "channel".
      projection: "random", or "svd" for the largest left singular vectors of the gradient, as in
        `scale_by_galore`, with zeros for singular values that are 0. Default: "random".
      gamma: the largest factor by which the norm of an update grows from step to step, positive;
        `None` for no limit. Default: 1.01.
      key: a random key of JAX, or a seed. Default: the seed 0.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: `scaling` or `projection` is unknown, `key` holds several keys, or a leaf is not a
        matrix and has no dimension numbers.

    Source: Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv:2412.05270,
    Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_apollo(rank=1, scaling="tensor", projection="svd")
      >>> g = jnp.array([[3.0, 0.0], [0.0, 0.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[1. 0.]
       [0. 0.]]
    """
    axes = AXES if scaling == "tensor" else (1,)

    def init(p: Array, keys: Array) -> Slots:
        return Slots(**first_moments(p, rank))

    @guarded
    @on_wide
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        shape = s.projector.shape[1:]

        def renewed() -> Array:
            if projection == "svd":
                return principal_vectors(lax.stop_gradient(g), s.projector, only_range=True)
            draw = functools.partial(jax.random.normal, shape=shape, dtype=g.dtype)
            return jax.vmap(draw)(s.rng_key) / max(shape[1], 1) ** 0.5

        renews = step % value_of(update_proj_gap) == 0
        projector = lax.cond(renews, renewed, lambda: s.projector)
        r = into(projector, g)
        d, moments = adam_of(r, s, b1, b2, eps)
        u, norm = limited(g * growth(d, r, axes), s.norm, gamma)
        slots = Slots(**moments, projector=projector, norm=norm, rejected=s.rejected)
        return times(scale, u), slots

    return matrixwise(
        ScaleByApolloState, init, update, axes=weight_dimension_numbers,
        key=as_key(key, None, "scale_by_apollo"),
        argument="weight_dimension_numbers", name="scale_by_apollo",
        per_step=lambda step, _: weights_of_moments(b1, b2, step),
    )  # fmt: skip


@optimizer(
    APOLLO,
    family="low rank",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "rank": 1, "update_proj_gap": 5},
    usual_rate=0.01,
    ranges=RANGES,
)
def apollo(
    learning_rate: ScalarOrSchedule,
    rank: int = 256,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    scaling: Literal["channel", "tensor"] = "channel",
    projection: Literal["random", "svd"] = "random",
    gamma: Scalar | None = 1.01,
    key: int | Array | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """APOLLO: gradients of matrices scaled as Adam scales projections, and AdamW for other leaves.

    `p - learning_rate * (u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_apollo`.

    The authors' program takes the square root of its argument `scale`; it limits the growth of
    norms before the correction of the moments for their start at zero, multiplies the step by that
    correction, and adds 1e-8 to the norms of projections. It keeps a seed and draws the projector
    again at every step, where this one keeps the projector.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      rank: the number of columns of the projector, at least 1. Default: 256.
      update_proj_gap: the number of steps for which the projector is kept, at least 1. Default:
        200.
      scale: the factor of the updates of matrices, the paper's `alpha`. Default: 1.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.999.
      eps: added to the root. Default: 1e-6.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      scaling: "channel" for one factor for each element of the longer side, or "tensor" for one for
        each matrix. Default: "channel".
      projection: "random", or "svd" for the largest singular vectors. Default: "random".
      gamma: the largest factor by which the norm of an update grows from step to step, positive;
        `None` for no limit. Default: 1.01.
      key: a random key of JAX, or a seed. Default: the seed 0.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same hyperparameters.

    Raises:
      ValueError: `scaling` or `projection` is unknown, `key` holds several keys, or `update` was
        called without params.

    Source: Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv:2412.05270.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.ones((64, 256)), "b": jnp.zeros(256)}
      >>> state = gradtx.apollo(0.01, rank=4).init(params)
      >>> state.inner_states["matrices"].inner_state[0].nu["w"].shape
      (1, 4, 256)
    """
    of_matrices = chain(
        scale_by_apollo(
            rank,
            update_proj_gap,
            scale,
            b1,
            b2,
            eps,
            scaling=scaling,
            projection=projection,
            gamma=gamma,
            key=key,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)


@optimizer(
    APOLLO,
    family="low rank",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "scale": 1.0, "update_proj_gap": 5},
    usual_rate=0.01,
    ranges=RANGES,
)
def apollo_mini(
    learning_rate: ScalarOrSchedule,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 128**0.5,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    projection: Literal["random", "svd"] = "random",
    gamma: Scalar | None = 1.01,
    key: int | Array | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """APOLLO-Mini: APOLLO of rank 1, with one factor for each matrix.

    `p - learning_rate * (u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_apollo(rank=1, scaling="tensor")`. See `apollo` for what the authors' program does
    otherwise.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      update_proj_gap: the number of steps for which the projector is kept, at least 1. Default:
        200.
      scale: the factor of the updates of matrices, the paper's `alpha`. Default: `sqrt(128)`.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the average of squares, in [0, 1). Default: 0.999.
      eps: added to the root. Default: 1e-6.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      projection: "random", or "svd" for the largest singular vector. Default: "random".
      gamma: the largest factor by which the norm of an update grows from step to step, positive;
        `None` for no limit. Default: 1.01.
      key: a random key of JAX, or a seed. Default: the seed 0.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same hyperparameters.

    Raises:
      ValueError: `projection` is unknown, `key` holds several keys, or `update` was called without
        params.

    Source: Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv:2412.05270.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.ones((64, 256)), "b": jnp.zeros(256)}
      >>> state = gradtx.apollo_mini(0.01).init(params)
      >>> state.inner_states["matrices"].inner_state[0].nu["w"].shape
      (1, 1, 256)
    """
    return apollo(
        learning_rate,
        1,
        update_proj_gap,
        scale,
        b1,
        b2,
        eps,
        weight_decay,
        mask,
        scaling="tensor",
        projection=projection,
        gamma=gamma,
        key=key,
        weight_dimension_numbers=weight_dimension_numbers,
        of_rest=of_rest,
    )
