"""Muon: orthogonalized momentum for matrices."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx._roles import Count, Shared, Slot, declared
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
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, times, widen
from gradtx.engine.paths import is_none
from gradtx.engine.pipeline import Pipeline, gather, pipeline_of
from gradtx.engine.rules import Slots
from gradtx.matrices.layout import Layout, MatrixAxes, axes_of_leaves
from gradtx.matrices.matrixwise import matrixwise
from gradtx.optimizers._adam import adamw
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.partitioning import partition
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.storing import store_as
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import safe_sqrt

MUON = "Jordan et al., 'Muon: An optimizer for hidden layers in neural networks' (2024)"

MuonDimensionNumbers = MatrixAxes
Preconditioning = Literal["frobenius", "spectral", "schatten", "aol"]
Coefficients = ArrayLike | Sequence[Scalar] | Sequence[Sequence[Scalar]]
"""Three coefficients of a polynomial, or three for each step."""

COEFFICIENTS = {
    # Jordan et al.: the steepest slope at 0, singular values end between 0.7 and 1.2
    "standard": (3.4445, -4.7750, 2.0315),
    # from the code of Ahn et al., arXiv:2504.05295: one polynomial for each of five steps, listed
    # coefficient by coefficient
    "dion": tuple(
        zip(
            (4.0848, 3.9505, 3.7418, 2.8769, 2.8366),
            (-6.8946, -6.3029, -5.5913, -3.1427, -3.0525),
            (2.9270, 2.6377, 2.3037, 1.2046, 1.2012),
            strict=True,
        )
    ),
}


@declared
class MuonState(NamedTuple):
    """The state of `scale_by_muon`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      ns_coeffs: the coefficients of the Newton–Schulz polynomials.
    """

    count: Count
    mu: Slot
    ns_coeffs: Shared


def newton_schulz(
    g: Array, coefficients: Array, steps: int, preconditioning: Preconditioning, eps: Scalar
) -> Array:
    """Moves the singular values of matrices towards 1, using matrix products only.

    `x = g / norm(g)`, and then, `steps` times, `a = x @ x.H; x = (c0*I + c1*a + c2*a@a) @ x`. The
    products are computed in the dtype of `g`, and in JAX's current matmul precision: inside of
    `jax.default_matmul_precision("bfloat16")` an accelerator computes them at full speed, which is
    accurate enough for five steps of Muon.

    Args:
      g: matrices `(n, rows, columns)`, with no more rows than columns.
      coefficients: `(3,)`, or `(steps, 3)` for one polynomial at each step.
      steps: the number of steps, if one polynomial is used for all.
      preconditioning: the norm to divide by: "frobenius", "spectral", "schatten" (the Schatten
        4-norm), or "aol", which scales each row separately.
      eps: added to the Frobenius and the spectral norm.
    """
    x = _PRECONDITIONERS[preconditioning](_within_range(g), eps)
    each = jnp.broadcast_to(coefficients, (steps, 3)) if coefficients.ndim == 1 else coefficients

    # c0 is added to the diagonal of the smaller matrix, which saves a pass over x.
    identity = jnp.asarray(np.eye(x.shape[1], dtype=x.dtype)[None])

    def step(x: Array, c: Array) -> tuple[Array, None]:
        a = _gram(x)
        polynomial = lax.add(times(c[1], a), times(c[2], _product(a, a)))
        return _product(polynomial + times(c[0], identity), x), None

    # Traced once, and unrolled in the program: a loop copies x at each step, at least on CPUs.
    return lax.scan(step, x, each, unroll=True)[0]


def _product(a: Array, b: Array) -> Array:
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))))


def _gram(x: Array) -> Array:
    conjugate = lax.conj(x) if jnp.iscomplexobj(x) else x
    return lax.dot_general(x, conjugate, (((2,), (2,)), ((0,), (0,))))


def _within_range(g: Array) -> Array:
    """Divides matrices whose squares may overflow by their largest magnitude."""
    largest = jnp.max(jnp.abs(g), (1, 2), keepdims=True, initial=0)
    limit = float(jnp.finfo(g.dtype).max) ** 0.25 / 100  # fourth powers, for one norm
    return g / jnp.where(largest > limit, largest, 1)


def _by_frobenius_norm(g: Array, eps: Scalar) -> Array:
    norm = safe_sqrt(jnp.sum(abs_sq(widen(g)), (1, 2), keepdims=True)) + eps
    return _divided(g, norm).astype(g.dtype)


def _by_spectral_norm(g: Array, eps: Scalar) -> Array:
    return _divided(g, jnp.linalg.norm(g, 2, (1, 2), keepdims=True) + eps)


def _by_schatten_norm(g: Array, eps: Scalar) -> Array:
    # the 4-norm of the singular values is the root of the Frobenius norm of g @ g.H
    square = safe_sqrt(jnp.sum(abs_sq(_gram(g)), (1, 2), keepdims=True))
    return _divided(g, safe_sqrt(square))


def _by_row_sums(g: Array, eps: Scalar) -> Array:
    # "almost orthogonal": row sums bound the singular values of g, by Gershgorin's theorem
    return _divided(g, safe_sqrt(jnp.sum(jnp.abs(_gram(g)), 2, keepdims=True)))


def _divided(g: Array, norm: Array) -> Array:
    zero = norm == 0
    return jnp.where(zero, 0, g / jnp.where(zero, 1, norm))


_PRECONDITIONERS = {
    "frobenius": _by_frobenius_norm,
    "spectral": _by_spectral_norm,
    "schatten": _by_schatten_norm,
    "aol": _by_row_sums,
}


@functools.partial(piece, constants=("ns_coeffs",))
def scale_by_muon(
    ns_coeffs: Coefficients = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Orthogonalizes momentum: all its singular values become about 1.

    `mu = beta*mu + (1-beta)*g; m = mu / (1-beta**t)`, where `t` is 1 at the first step; with
    Nesterov momentum `m = beta * mu / (1-beta**(t+1)) + (1-beta) * g / (1-beta**t)`. Then `u @ v.H`
    of the singular value decomposition `m = u @ s @ v.H`, approximately, by `newton_schulz`.
    Matrices of one shape go through it in one batch, tall ones transposed.

    Args:
      ns_coeffs: the three coefficients of the polynomial, or a tuple of three for each step.
        Default: those of Jordan et al.
      ns_steps: the number of steps, if one polynomial is used for all. Default: 5.
      beta: the decay rate of the average of gradients. Default: 0.95.
      eps: added to the Frobenius or the spectral norm. Default: 1e-8.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      nesterov: whether to use Nesterov momentum. Default: True.
      adaptive: whether to multiply each matrix by `sum(real(conj(m) * (u @ v.H)))`, the nuclear
        norm of `m`, which is the dual of the spectral norm (arXiv:2409.20325). Default: False.
      preconditioning: the norm by which matrices are divided first: "frobenius", "spectral",
        "schatten" (arXiv:2506.10935) or "aol" (arXiv:2512.04632). Default: "frobenius".
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of
        `MuonDimensionNumbers`, like the parameters or a prefix of them, or a function of the
        parameters that returns one. Default: every leaf is a matrix.

    Raises:
      ValueError: `preconditioning` is unknown, or a leaf is not a matrix and has no dimension
        numbers.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_muon(((2.0, -1.5, 0.5),) * 10)
      >>> g = jnp.array([[3.0, 0.0], [0.0, -1.0]])
      >>> print(tx.update(g, tx.init(g))[0])
      [[ 1.  0.]
       [ 0. -1.]]
    """
    return _muon(
        ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov, adaptive, preconditioning,
        weight_dimension_numbers, None,
    )  # fmt: skip


@functools.partial(piece, constants=("ns_coeffs",))
def _muon(
    ns_coeffs: Coefficients,
    ns_steps: int,
    beta: Scalar,
    eps: Scalar,
    mu_dtype: DTypeLike | None,
    nesterov: bool,
    adaptive: bool,
    preconditioning: Preconditioning,
    axes: PyTree | Callable[[Params], PyTree] | None,
    factor: Callable[[int, int], Scalar] | None,
) -> GradientTransformation:
    """Returns `scale_by_muon` with a factor that depends on a matrix's rows and columns."""

    def per_step(step: Scalar) -> dict[str, Array]:
        t = step_number(step)
        return {"weight": gathered_weight(beta, t), "next_weight": gathered_weight(beta, t + 1)}

    def average(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, beta)
        m = over(mu, s.weight)
        if nesterov:
            m = ema(over(g, s.weight), over(mu, s.next_weight), beta)
        return m, Slots(mu=mu)

    def orthogonalize(m: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        coefficients = jnp.asarray(_values(ns_coeffs), jnp.finfo(m.dtype).dtype)
        o = newton_schulz(m, coefficients, ns_steps, preconditioning, eps)
        if adaptive:
            o = o * jnp.sum((m.conj() * o).real, (1, 2), keepdims=True)
        return o, Slots()

    def after(o: Array, layout: Layout) -> Array:
        return o if factor is None else times(factor(layout.rows, layout.columns), o)

    momentum = store_as(
        leafwise(
            MuonState,
            lambda p: Slots(mu=jnp.zeros_like(p)),
            average,
            per_step=per_step,
            scalars={"ns_coeffs": _values(ns_coeffs)},
            name="scale_by_muon",
        ),
        mu=mu_dtype,
    )
    matrices = matrixwise(
        EmptyState, None, orthogonalize, axes=axes, lying=True, after=after,
        name="scale_by_muon",
    )  # fmt: skip
    # The orthogonalization has no state, so the state is that of the momentum alone.
    links, (skeleton, _) = gather([pipeline_of(momentum), pipeline_of(matrices)])
    return Pipeline(links, skeleton).transformation()


def _values(coefficients: Coefficients) -> np.ndarray | Array:
    """Returns coefficients as an array; plain numbers as one of NumPy, without initializing JAX."""
    plain = all(isinstance(x, (int, float)) for x in jax.tree.leaves(coefficients))
    return np.asarray(coefficients, float) if plain else jnp.asarray(coefficients)


@optimizer(
    MUON,
    probe={"learning_rate": 0.02},
    usual_rate=0.02,
    constants=("ns_coeffs",),
)
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Coefficients | Literal["standard", "dion"] = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: MaskOrFn | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    consistent_rms: Scalar | None = None,
) -> GradientTransformation:
    """Muon: orthogonalized momentum for matrices, and AdamW for all other leaves.

    `p - learning_rate * (f * (u @ v.H) + weight_decay * p)` for a matrix whose momentum is
    `u @ s @ v.H`, see `scale_by_muon`, with `f = sqrt(max(1, columns / rows))`, or
    `f = consistent_rms * sqrt(max(rows, columns))` if `consistent_rms` is given.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      ns_coeffs: the three coefficients of the Newton–Schulz polynomial, a tuple of three for each
        step, or "standard" or "dion". Default: those of Jordan et al.
      ns_steps: the number of Newton–Schulz steps, if one polynomial is used for all. Default: 5.
      beta: the decay rate of the average of gradients. Default: 0.95.
      eps: added to the norm of the momentum, and to Adam's root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay of the matrices, a number or a
        schedule; the learning rate multiplies it. Default: 0.
      weight_decay_mask: which parameters decay: a pytree of booleans, or a function of the
        parameters that returns one. Default: all.
      mu_dtype: the dtype in which averages of gradients are stored. Default: the parameters' dtype,
        and float32 for half precision.
      nesterov: whether to use Nesterov momentum, in both parts. Default: True.
      adaptive: whether to multiply each matrix by the nuclear norm of its momentum. Default: False.
      preconditioning: "frobenius", "spectral", "schatten" or "aol". Default: "frobenius".
      adam_b1: `b1` of AdamW. Default: 0.9.
      adam_b2: `b2` of AdamW. Default: 0.999.
      adam_eps_root: `eps_root` of AdamW. Default: 0.
      adam_weight_decay: the weight decay of AdamW. Default: 0.
      adam_learning_rate: the learning rate of AdamW. Default: `learning_rate`.
      muon_weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of
        `MuonDimensionNumbers`, like the parameters or a prefix of them, or a function of the
        parameters that returns one; leaves for AdamW have `None`. Default: Muon for the leaves with
        two axes.
      consistent_rms: the root mean square of a step's elements at rate 1, for example 0.2, so that
        both parts can share a learning rate (arXiv:2502.16982). Default: `None`, for
        `f = sqrt(max(1, columns / rows))`.

    Raises:
      ValueError: `ns_coeffs` or `preconditioning` is unknown, or `update` was called without
        params.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.muon(0.1, ns_coeffs=((2.0, -1.5, 0.5),) * 10)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update({"w": 3 * jnp.eye(2), "b": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["w"])
      [[-0.1 -0. ]
       [-0.  -0.1]]
    """
    if isinstance(ns_coeffs, str) and ns_coeffs not in COEFFICIENTS:
        known = ", ".join(map(repr, COEFFICIENTS))
        raise ValueError(f"muon: ns_coeffs must be one of {known}, got {ns_coeffs!r}")
    coefficients = COEFFICIENTS[ns_coeffs] if isinstance(ns_coeffs, str) else ns_coeffs
    axes = muon_weight_dimension_numbers

    def labels(tree: PyTree) -> PyTree:
        leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
        if axes is None:
            found: Sequence[bool] = [getattr(x, "ndim", 0) == 2 for x in leaves]
        else:
            found = [a is not None for a in axes_of_leaves(axes, tree)]
        return treedef.unflatten("muon" if f else "adam" for f in found)

    def factor(rows: int, columns: int) -> Scalar:
        if consistent_rms is None:
            return max(1.0, columns / max(rows, 1)) ** 0.5
        return consistent_rms * max(rows, columns) ** 0.5

    of_matrices = chain(
        _muon(
            coefficients,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov,
            adaptive,
            preconditioning,
            axes,
            factor,
        ),
        identity(),  # in place of optax's multiplication by the factor, as in its state
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    of_the_rest = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        weight_decay_mask,
        nesterov=nesterov,
    )
    return partition({"muon": of_matrices, "adam": of_the_rest}, labels)
