"""Shampoo: preconditioning by inverse roots of the second moments of rows and columns."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradtx._arguments import require_transformation
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
from gradtx.engine.numerics import abs_sq, ema, over, value_of
from gradtx.engine.rules import Slots
from gradtx.linear_algebra.inverse_roots import RootMethod, inverse_roots
from gradtx.matrices.blocks import in_blocks
from gradtx.matrices.guard import guarded
from gradtx.matrices.layout import MatrixAxes
from gradtx.matrices.matrixwise import matrixwise
from gradtx.matrices.renewal import next_ages, renewed
from gradtx.matrices.sides import (
    AXES,
    between,
    identities,
    next_moment,
    second_moment,
    sizes,
    stored_dtype,
)
from gradtx.optimizers._adagrad import scale_by_rss
from gradtx.optimizers._adam import adamw, scale_by_adam
from gradtx.optimizers._rmsprop import scale_by_rms
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.grafting import graft
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight, step_number

SHAMPOO = (
    "Gupta et al., 'Shampoo: Preconditioned Stochastic Tensor Optimization', arXiv:1802.09568; "
    "Anil et al., 'Scalable Second Order Optimization for Deep Learning', arXiv:2002.09018; Shi "
    "et al., 'A Distributed Data-Parallel PyTorch Implementation of the Distributed Shampoo "
    "Optimizer', arXiv:2309.06497"
)

Accumulation = Literal["average", "sum"]
Grafting = Literal["adam", "rmsprop", "adagrad", "sgd"]


@declared
class ScaleByShampooState(NamedTuple):
    """The state of `scale_by_shampoo`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      left: for each leaf, the average or sum of `g @ g.H`, for each matrix `[rows, rows]`. Tall
        matrices are transposed.
      right: the average or sum of `g.H @ g`, for each matrix `[columns, columns]`.
      left_root: the inverse root of `left`.
      right_root: the inverse root of `right`.
      age: for each matrix, the number of steps since its roots were computed, if `stagger` is set.
      rejected: for each matrix, the number of gradients and roots that were not finite.
    """

    count: Count
    mu: Slot
    left: Statistic
    right: Statistic
    left_root: Statistic
    right_root: Statistic
    age: Statistic
    rejected: Tally


@functools.partial(piece, constants=("precondition_frequency", "exponent_override"))
def scale_by_shampoo(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    precondition_frequency: int = 10,
    *,
    accumulation: Accumulation = "average",
    exponent_override: int | None = None,
    root: RootMethod = "eigh",
    max_dim: int | None = 10_000,
    block_size: int | None = None,
    stagger: bool = False,
    statistics_dtype: DTypeLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Multiplies momentum by inverse roots of the second moments of rows and columns.

    With `t` 1 at the first step::

        mu = b1*mu + (1-b1)*g
        left = b2*left + (1-b2)*(g @ g.H);   right = b2*right + (1-b2)*(g.H @ g)
        update = root(left / (1-b2**t)) @ (mu / (1-b1**t)) @ root(right / (1-b2**t))

    where `root(A) = (A + eps * I)**(-1/p)`, and `p` is twice the number of sides: 4, or 2 if only
    one side is preconditioned. Roots are computed at the first step and every
    `precondition_frequency` steps. Eigenvalues below the rounding error of the largest are raised
    to it, so that updates do not depend on rounding errors in null spaces.

    A matrix whose gradient is not finite, or so large that its squares are not, counts as having a
    gradient of zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are
    returned as they are, for `gradtx.apply_if_finite` to find. Tensors with more than two axes are
    matrices by `weight_dimension_numbers`, with a second moment of the merged rows and one of the
    merged columns; `scale_by_tensor_shampoo` has one for each axis. Derivatives treat roots as
    constants.

    Args:
      b1: decay rate of the average of gradients, in [0, 1); 0 for no momentum. Default: 0.9.
      b2: decay rate of the averages of second moments, in [0, 1). Default: 0.999.
      eps: added to the diagonal before the root. Default: 1e-12.
      precondition_frequency: the number of steps for which roots are kept, a Python integer, at
        least 1. Default: 10.
      accumulation: "average", or "sum" for sums of second moments, as in the first paper, where
        `b2` has no effect. Default: "average".
      exponent_override: the order `p` of the root, a Python integer, at least 1. Default: twice the
        number of sides.
      root: "eigh", or "newton" for the coupled Newton iteration of
        arXiv:2002.09018. Default: "eigh".
      max_dim: the length of the longest side that is preconditioned; `None` for no limit. Default:
        10,000.
      block_size: the longest side of the blocks into which large matrices are divided, each with
        its own roots; a division with a rest is filled up with zeros. Default: `None`, matrices are
        not divided.
      stagger: whether each step computes the roots of some of the matrices of a shape, those that
        are oldest, instead of all of them every few steps. Which ones depends on how the matrices
        are divided over devices. Default: False.
      statistics_dtype: the dtype in which second moments and roots are stored. Default: that of the
        parameters, and float32 for half precision; those of complex parameters always are in
        theirs.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: a leaf is not a matrix and has no dimension numbers.

    Source: Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization",
    arXiv:1802.09568, Algorithm 1; averages and bias corrections: Shi et al., "A Distributed
    Data-Parallel PyTorch Implementation of the Distributed Shampoo Optimizer", arXiv:2309.06497.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_shampoo()
      >>> g = jnp.array([[3.0, 0.0], [0.0, -1.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[ 1.  0.]
       [ 0. -1.]]
    """
    average = accumulation == "average"

    def init(p: Array) -> Slots:
        n, dtype = p.shape[0], stored_dtype(p, statistics_dtype)
        left, right = sizes(p.shape, max_dim)
        return Slots(
            mu=jnp.zeros_like(p),
            left=jnp.zeros((n, left, left), dtype),
            right=jnp.zeros((n, right, right), dtype),
            left_root=identities(n, left, dtype),
            right_root=identities(n, right, dtype),
            age=jnp.zeros((n,), jnp.int32),
            rejected=jnp.zeros((n,), jnp.int32),
        )

    def per_step(step: Array) -> dict[str, Array]:
        t = step_number(step)
        of_moments = gathered_weight(b2, t) if average else jnp.ones(())
        return {"of_mu": gathered_weight(b1, t), "of_moments": of_moments}

    def moment(held: Array, g: Array, axis: int) -> Array:
        if average or held.shape[1] == 0:
            return next_moment(held, g, axis, b2)
        return held.astype(g.dtype) + second_moment(g, axis)

    def roots(moments: tuple[Array, Array], old: tuple[Array, Array]) -> tuple[Array, Array]:
        order = exponent_override or 2 * sum(x.shape[1] > 0 for x in moments)
        left, right = (
            inverse_roots(lax.stop_gradient(a), order, value_of(eps), root) if a.shape[1] else x
            for a, x in zip(moments, old, strict=True)
        )
        return left, right

    @guarded
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        left, right = (moment(x, g, axis) for x, axis in zip((s.left, s.right), AXES, strict=True))
        old = s.left_root.astype(g.dtype), s.right_root.astype(g.dtype)
        (left_root, right_root), bad = renewed(
            roots,
            (over(left, s.of_moments), over(right, s.of_moments)),
            old,
            step,
            precondition_frequency,
            ages=s.age if stagger else None,
        )
        return between(left_root, over(mu, s.of_mu), right_root), Slots(
            mu=mu,
            left=left,
            right=right,
            left_root=left_root,
            right_root=right_root,
            age=next_ages(s.age, step, precondition_frequency) if stagger else s.age,
            rejected=s.rejected + bad,
        )

    first, rule = in_blocks(init, update, block_size, ("mu",))
    return matrixwise(
        ScaleByShampooState, first, rule, axes=weight_dimension_numbers, lying=True,
        per_step=per_step, argument="weight_dimension_numbers", name="scale_by_shampoo",
    )  # fmt: skip


@optimizer(
    SHAMPOO,
    family="Shampoo",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "precondition_frequency": 1, "eps": 0.1},
    usual_rate=0.001,
    constants=("precondition_frequency", "exponent_override"),
)
def shampoo(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    precondition_frequency: int = 10,
    *,
    grafting: Grafting | TransformationLike | None = "adam",
    grafting_eps: Scalar = 1e-8,
    accumulation: Accumulation = "average",
    exponent_override: int | None = None,
    root: RootMethod = "eigh",
    max_dim: int | None = 10_000,
    block_size: int | None = None,
    stagger: bool = False,
    statistics_dtype: DTypeLike | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """Shampoo: inverse roots of second moments of rows and columns, and AdamW for all other leaves.

    `p - learning_rate * (f * u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_shampoo`, and `f` scales it to the norm of the update of another method, see `graft`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      b2: decay rate of the averages of second moments, in [0, 1). Default: 0.999.
      eps: added to the diagonal of second moments before the root. Default: 1e-12.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      precondition_frequency: the number of steps for which roots are kept, a Python integer, at
        least 1. Default: 10; the papers use 1 to 100.
      grafting: the method that gives the norm of each matrix's update: "adam" with `b1` and `b2`;
        "rmsprop" with `b2` and bias correction; "adagrad"; "sgd" for the gradient itself; any
        transformation; or `None`, for updates that are not scaled, as in the first paper. Matrices
        whose squares are not finite are zeros for it. Default: "adam".
      grafting_eps: `eps` of that method. Default: 1e-8.
      accumulation: "average" or "sum" of second moments. Default: "average".
      exponent_override: the order of the root, a Python integer, at least 1. Default: 4, or 2 for
        matrices of which only one side is preconditioned.
      root: "eigh" or "newton". Default: "eigh".
      max_dim: the length of the longest side that is preconditioned; `None` for no limit. Default:
        10,000.
      block_size: the longest side of the blocks into which large matrices are divided. Default:
        `None`, they are not divided; 1,024 in the authors' program.
      stagger: whether each step computes the roots of some of the matrices of a shape, those that
        are oldest. Default: False.
      statistics_dtype: the dtype in which second moments and roots are stored. Default: that of the
        parameters, and float32 for half precision.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with `b1`, `b2` and `grafting_eps`.

    Raises:
      ValueError: `grafting` is unknown, or `update` was called without params.

    Source: Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization",
    arXiv:1802.09568; Anil et al., "Scalable Second Order Optimization for Deep Learning",
    arXiv:2002.09018; Shi et al., "A Distributed Data-Parallel PyTorch Implementation of the
    Distributed Shampoo Optimizer", arXiv:2309.06497.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.shampoo(0.1, grafting=None)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update({"w": 3 * jnp.eye(2), "b": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["w"].round(3))
      [[-0.1 -0. ]
       [-0.  -0.1]]
    """
    direction = scale_by_shampoo(
        b1,
        b2,
        eps,
        precondition_frequency,
        accumulation=accumulation,
        exponent_override=exponent_override,
        root=root,
        max_dim=max_dim,
        block_size=block_size,
        stagger=stagger,
        statistics_dtype=statistics_dtype,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    magnitude = grafting
    if isinstance(magnitude, str):
        magnitude = _magnitude(magnitude, b1, b2, grafting_eps)
    if magnitude is not None:
        require_transformation(magnitude, "shampoo: grafting")
        axes = MatrixAxes() if weight_dimension_numbers is None else weight_dimension_numbers
        direction = graft(direction, chain(_finite(axes), magnitude), weight_dimension_numbers=axes)
    of_matrices = chain(
        direction,
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, b1, b2, grafting_eps, weight_decay=weight_decay, mask=mask)
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)


@piece
def _finite(axes: PyTree | Callable[[Params], PyTree]) -> GradientTransformation:
    """Replaces matrices whose squares are not finite by zeros, as `scale_by_shampoo` does, so that
    they do not reach the averages of the grafted method."""

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        finite = jnp.isfinite(jnp.sum(abs_sq(g), (1, 2), keepdims=True))
        return jnp.where(finite, g, 0), Slots()

    return matrixwise(
        EmptyState, None, update, axes=axes, argument="weight_dimension_numbers", name="shampoo"
    )


def _magnitude(name: Grafting, b1: Scalar, b2: Scalar, eps: Scalar) -> GradientTransformation:
    known = {
        "adam": lambda: scale_by_adam(b1, b2, eps),
        "rmsprop": lambda: scale_by_rms(b2, eps, bias_correction=True, eps_in_sqrt=False),
        "adagrad": lambda: scale_by_rss(0.0, eps),
        "sgd": identity,
    }
    if name not in known:
        raise ValueError(
            f"shampoo: grafting must be one of {', '.join(map(repr, known))}, a transformation or "
            f"None, got {name!r}"
        )
    return known[name]()
