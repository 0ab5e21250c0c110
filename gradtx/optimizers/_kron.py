"""PSGD Kron: whitening by triangular factors that are fitted by stochastic gradient descent."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx._roles import Count, RandomKey, Slot, Statistic, Tally, declared
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
from gradtx.engine.numerics import abs_sq, ema, over, times, value_of
from gradtx.engine.rules import Slots, value_at
from gradtx.linear_algebra.decompositions import solve_adjoint
from gradtx.matrices.guard import guarded
from gradtx.matrices.matrixwise import matrixwise
from gradtx.matrices.sides import AXES, identities, product, second_moment
from gradtx.optimizers._adam import adamw
from gradtx.schedules.decay import exponential_decay
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.noise import as_key
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import norms

KRON = (
    "Li, 'Preconditioned Stochastic Gradient Descent', arXiv:1512.04202; Pooladzandi and Li, "
    "'Curvature-Informed SGD via General Purpose Lie-Group Preconditioners', arXiv:2402.04553; Li, "
    "'Stochastic Hessian Fittings with Lie Groups', arXiv:2402.11858"
)
UPDATE_PROBABILITY = exponential_decay(1.0, 1000, 0.36787944117144233, 200, end_value=0.03)
"""1 for 200 steps, then divided by e over every 1000, down to 0.03 from step 3,707 on."""


@declared
class ScaleByKronState(NamedTuple):
    """The state of `scale_by_kron`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      left: for each leaf, the factor of the rows of each matrix, upper triangular `[rows, rows]`,
        or the diagonal `[rows]` of one; a tall matrix is transposed.
      right: the factor of the columns, `[columns, columns]` or `[columns]`.
      rejected: for each matrix, the number of gradients and of factors that were not finite.
      rng_key: the random key of the next step.
    """

    count: Count
    mu: Slot
    left: Statistic
    right: Statistic
    rejected: Tally
    rng_key: RandomKey


@piece
def scale_by_kron(
    b1: Scalar = 0.9,
    preconditioner_update_probability: ScalarOrSchedule = UPDATE_PROBABILITY,
    max_size_triangular: int = 8192,
    max_skew_triangular: int | None = None,
    *,
    precond_lr: ScalarOrSchedule = 0.1,
    precond_init_scale: Scalar = 1.0,
    damping: Scalar = 1e-9,
    max_rms: Scalar | None = 1.1,
    momentum_into_preconditioner: bool = True,
    bias_correction: bool = True,
    key: int | Array | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Whitens the momentum of matrices by triangular factors of their rows and columns.

    With `t` 1 at the first step, upper triangular `left` and `right`, and a matrix `v` of normal
    random numbers, new at every step::

        mu = b1*mu + (1-b1)*g;   m = mu / (1-b1**t);   x = m + damping*v
        a = left @ x @ right.H;  b = inv(left).H @ v @ inv(right)
        left = left - precond_lr * triu(a @ a.H - b @ b.H) @ left / norm(a @ a.H + b @ b.H)
        right = right - precond_lr * triu(a.H @ a - b.H @ b) @ right / norm(a.H @ a + b.H @ b)
        u = left.H @ left @ m @ right.H @ right
        update = u * min(1, max_rms / rms(u))

    The two factors are fitted where the expected values of `a @ a.H` and `b @ b.H` are equal, and
    updates then have the mean square 1, however large the gradients are. `norm` is a lower bound of
    the spectral norm: that after one power iteration from the longest column. The factor of a side
    that is too long, or too long compared with the other one, is diagonal; its norm is the largest
    element. Both factors are fitted from the same `a` and `b`, and only at some of the steps, which
    are random, and the same for all matrices and on every mesh.

    Between steps one factor is multiplied by a number and the other divided by it, so that their
    largest elements are equal. This changes no update; the authors' programs do it with
    probability 0.01.

    A matrix whose gradient is not finite, or so large that its squares are not, counts as having a
    gradient of zeros, and factors that are not finite are not stored; see `rejected` in
    `gradtx.metrics`. Its elements that are not finite are returned as they are, for
    `gradtx.apply_if_finite` to find.

    Args:
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      preconditioner_update_probability: the probability that the factors are fitted at a step, in
        [0, 1], a number or a schedule. Default: 1 for 200 steps, and then
        `exp(-(step - 200) / 1000)`, but at least 0.03.
      max_size_triangular: the length of the longest side that has a triangular factor, at least 1;
        with 1 all factors are diagonal. Default: 8192.
      max_skew_triangular: the largest ratio of a side to the shorter one with which it has a
        triangular factor, at least 1; `None` for no limit. Default: `None`.
      precond_lr: the relative size of the steps of the factors, in [0, 1], a number or a schedule.
        Default: 0.1.
      precond_init_scale: the product of the elements on the diagonals of both first factors,
        positive. Default: 1.
      damping: the multiple of `v` that is added when the factors are fitted, not negative; it
        limits how much gradients are amplified, to `1 / damping`. Default: 1e-9.
      max_rms: the largest root mean square of the update of a matrix; `None` for no
        limit. Default: 1.1.
      momentum_into_preconditioner: whether factors are fitted to `m`, or else to `g` in its place.
        Default: True.
      bias_correction: whether `mu` is divided by `1-b1**t`. Default: True.
      key: a random key of JAX, or a seed. Default: the seed 0.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: a leaf is not a matrix and has no dimension numbers, or `key` holds several keys.

    Source: Li, "Preconditioned Stochastic Gradient Descent", arXiv:1512.04202; Pooladzandi and Li,
    "Curvature-Informed SGD via General Purpose Lie-Group Preconditioners", arXiv:2402.04553; Li,
    "Stochastic Hessian Fittings with Lie Groups", arXiv:2402.11858.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_kron()
      >>> g = jnp.array([[2.0, 0.0], [0.0, 0.01]])
      >>> state = tx.init(g)
      >>> for _ in range(200):
      ...     updates, state = tx.update(g, state)
      >>> bool(updates[1, 1] > 0.3)
      True
    """

    def init(p: Array, keys: Array) -> Slots:
        n, *sides = p.shape
        longest = max_size_triangular
        if max_skew_triangular is not None:
            longest = min(longest, max_skew_triangular * min(sides))
        left, right = (
            identities(n, k, p.dtype) if k <= longest else jnp.ones((n, k), p.dtype) for k in sides
        )
        scale = value_of(precond_init_scale) ** 0.5
        return Slots(
            mu=jnp.zeros_like(p),
            left=times(scale, left),
            right=times(scale, right),
            rejected=jnp.zeros((len(p),), jnp.int32),
        )

    def per_step(step: Array, key: Array) -> dict[str, Scalar]:
        chance = jax.random.uniform(key)
        return {
            "fits": chance < value_of(value_at(preconditioner_update_probability, step)),
            "size": value_of(value_at(precond_lr, step)),
            "weight": gathered_weight(b1, step_number(step)) if bias_correction else jnp.ones(()),
        }

    @guarded
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        m = over(mu, s.weight)

        def fitted() -> tuple[Array, Array, Array]:
            draw = functools.partial(jax.random.normal, shape=g.shape[1:], dtype=g.dtype)
            v = jax.vmap(draw)(s.rng_key)
            x = m if momentum_into_preconditioner else g
            return _fitted(s.left, s.right, x + times(damping, v), v, s.size)

        none = jnp.zeros_like(s.rejected)
        left, right, bad = lax.cond(s.fits, fitted, lambda: (s.left, s.right, none))
        u = _on_both(_times_adjoint, left, _on_both(_times, left, m, right), right)
        if max_rms is not None:
            most = value_of(max_rms) * (g.shape[1] * g.shape[2]) ** 0.5
            (norm,) = norms(u, axis=AXES)
            factor = jnp.where(norm > most, most / jnp.where(norm > most, norm, 1), 1)
            u = u * factor.astype(u.dtype)
        return u, Slots(mu=mu, left=left, right=right, rejected=s.rejected + bad)

    return matrixwise(
        ScaleByKronState, init, update, axes=weight_dimension_numbers, lying=True,
        key=as_key(key, None, "scale_by_kron"),
        per_step=per_step, argument="weight_dimension_numbers", name="scale_by_kron",
    )  # fmt: skip


# A factor is upper triangular, `(n, size, size)`, or the diagonal of a diagonal one, `(n, size)`.


def _times(q: Array, x: Array) -> Array:
    return product(q, x) if q.ndim == 3 else q[:, :, None] * x


def _times_adjoint(q: Array, x: Array) -> Array:
    return product(_adjoint(q), x) if q.ndim == 3 else q[:, :, None].conj() * x


def _solved_adjoint(q: Array, x: Array) -> Array:
    """Returns `inv(q.H) @ x`."""
    if q.ndim == 2:
        return x / q[:, :, None].conj()
    return solve_adjoint(q, x)


def _adjoint(x: Array) -> Array:
    return x.mT.conj()


def _on_both(f: Callable[..., Array], left: Array, x: Array, right: Array) -> Array:
    """Applies a product with a factor to the rows and to the columns of matrices."""
    return _adjoint(f(right, _adjoint(f(left, x))))


def _fitted(
    left: Array, right: Array, x: Array, v: Array, size: Scalar
) -> tuple[Array, Array, Array]:
    """Returns the factors after one step of fitting, with equal largest elements.

    Args:
      left: the factors of the rows.
      right: the factors of the columns.
      x: the matrices that are to be whitened.
      v: random matrices.
      size: the relative size of the step.

    Returns:
      The factors, and for each matrix whether they were not finite and not stored, `(n,)`, int32.
    """
    a, b = _on_both(_times, left, x, right), _on_both(_solved_adjoint, left, v, right)
    # Their common scale cancels, and the squares are then in range.
    largest = [jnp.max(jnp.abs(y), AXES, keepdims=True, initial=0) for y in (a, b)]
    scale = jnp.maximum(*largest).astype(a.dtype)
    scale = jnp.where(scale == 0, 1, scale)
    a, b = a / scale, b / scale
    new = _next(left, a, b, size), _next(right, _adjoint(a), _adjoint(b), size)
    tops = [jnp.max(jnp.abs(q), range(1, q.ndim), initial=0) for q in new]
    good = (tops[0] > 0) & (tops[1] > 0) & jnp.isfinite(tops[0]) & jnp.isfinite(tops[1])
    root = jnp.sqrt(jnp.where(good, tops[1], 1)) / jnp.sqrt(jnp.where(good, tops[0], 1))

    def kept(q: Array, old: Array, factor: Array) -> Array:
        good_, factor = (jnp.expand_dims(y, range(1, q.ndim)) for y in (good, factor))
        return jnp.where(good_, q * factor.astype(q.dtype), old)

    return kept(new[0], left, root), kept(new[1], right, 1 / root), jnp.asarray(~good, jnp.int32)


def _next(q: Array, a: Array, b: Array, size: Scalar) -> Array:
    """Returns the factors of the rows after one step of fitting.

    Args:
      q: the factors.
      a: the whitened matrices.
      b: the random matrices after the inverse of the adjoint.
      size: the relative size of the step.
    """
    if q.ndim == 2:
        x, y = jnp.sum(abs_sq(a), 2), jnp.sum(abs_sq(b), 2)
        norm = jnp.max(x + y, 1, keepdims=True, initial=0)
        change = (x - y).astype(q.dtype) * q
    else:
        x, y = second_moment(a, 1), second_moment(b, 1)
        norm = _norm_bound(x + y)[:, None, None]
        change = product(jnp.triu(x - y), q)
    return q - times(size, change / jnp.where(norm > 0, norm, 1).astype(q.dtype))


def _norm_bound(x: Array) -> Array:
    """Returns lower bounds of the spectral norms of positive semi-definite matrices, `(n,)`."""
    longest = jnp.argmax(jnp.sum(abs_sq(x), 1), 1)
    column = jnp.take_along_axis(x, longest[:, None, None], 2)
    first = product(x, column)
    (one,), (two,) = norms(first, axis=AXES), norms(product(x, first), axis=AXES)
    return (two / jnp.where(one > 0, one, 1))[:, 0, 0]


@optimizer(
    KRON, family="Shampoo", acts_on="matrices", probe={"learning_rate": 0.05}, usual_rate=0.001
)
def kron(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    preconditioner_update_probability: ScalarOrSchedule = UPDATE_PROBABILITY,
    max_size_triangular: int = 8192,
    max_skew_triangular: int | None = None,
    *,
    precond_lr: ScalarOrSchedule = 0.1,
    precond_init_scale: Scalar = 1.0,
    damping: Scalar = 1e-9,
    max_rms: Scalar | None = 1.1,
    momentum_into_preconditioner: bool = True,
    bias_correction: bool = True,
    key: int | Array | None = None,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """PSGD Kron: momentum of matrices whitened by triangular factors, and AdamW for other leaves.

    `p - learning_rate * (u + weight_decay * p)` for a matrix, where `u` is the update of
    `scale_by_kron`.

    The defaults are those of Walters's program psgd_jax, which differs in these points: it has no
    bias correction and no damping; its updates are limited together to the norm that they have
    when all elements are 1, and then each element to 1; tensors have one factor for each axis;
    vectors and scalars have diagonal factors instead of AdamW. Li's program psgd_torch fits the
    factors to gradients, and averages the whitened gradients; it takes the first scale from the
    first gradient, and divides by a slowly falling maximum of the norms.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: decay rate of the average of gradients, in [0, 1). Default: 0.9.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      preconditioner_update_probability: the probability that the factors are fitted at a step, in
        [0, 1], a number or a schedule. Default: 1 for 200 steps, and then
        `exp(-(step - 200) / 1000)`, but at least 0.03.
      max_size_triangular: the length of the longest side that has a triangular factor, at least 1;
        with 1 all factors are diagonal. Default: 8192.
      max_skew_triangular: the largest ratio of a side to the shorter one with which it has a
        triangular factor, at least 1; `None` for no limit. Default: `None`.
      precond_lr: the relative size of the steps of the factors, in [0, 1], a number or a schedule.
        Default: 0.1.
      precond_init_scale: the product of the elements on the diagonals of both first factors,
        positive. Default: 1.
      damping: the multiple of random numbers that is added when the factors are fitted, not
        negative. Default: 1e-9.
      max_rms: the largest root mean square of the update of a matrix; `None` for no
        limit. Default: 1.1.
      momentum_into_preconditioner: whether factors are fitted to the momentum, or else to the
        gradients. Default: True.
      bias_correction: whether the momentum is corrected for its start at zero. Default: True.
      key: a random key of JAX, or a seed. Default: the seed 0.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one;
        leaves that are not matrices have `None`. Default: the leaves with two axes are matrices.
      of_rest: the transformation of the other leaves, with its own learning rate. Default: `adamw`
        with the same learning rate, `b1`, weight decay and mask.

    Raises:
      ValueError: `key` holds several keys, or `update` was called without params.

    Source: Li, "Preconditioned Stochastic Gradient Descent", arXiv:1512.04202; Pooladzandi and Li,
    "Curvature-Informed SGD via General Purpose Lie-Group Preconditioners", arXiv:2402.04553; Li,
    "Stochastic Hessian Fittings with Lie Groups", arXiv:2402.11858.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.kron(0.1)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, state = tx.update({"w": jnp.eye(2), "b": jnp.ones(2)}, tx.init(params), params)
      >>> state.inner_states["matrices"].inner_state[0].left["w"].shape
      (1, 2, 2)
    """
    of_matrices = chain(
        scale_by_kron(
            b1,
            preconditioner_update_probability,
            max_size_triangular,
            max_skew_triangular,
            precond_lr=precond_lr,
            precond_init_scale=precond_init_scale,
            damping=damping,
            max_rms=max_rms,
            momentum_into_preconditioner=momentum_into_preconditioner,
            bias_correction=bias_correction,
            key=key,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, b1, weight_decay=weight_decay, mask=mask)
    return for_matrices(of_matrices, of_rest, weight_dimension_numbers)
