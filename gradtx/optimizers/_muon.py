"""Muon: orthogonalized momentum for matrices."""

import functools
from collections.abc import Callable

from jax.typing import DTypeLike

from gradtx.catalog import optimizer
from gradtx.engine.base import (
    GradientTransformation,
    MaskOrFn,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
)
from gradtx.engine.leafwise import piece
from gradtx.linear_algebra.orthogonalizing import (
    COEFFICIENTS,
    Coefficients,
    Form,
    Named,
    Preconditioning,
    coefficients_of,
)
from gradtx.matrices.layout import MatrixAxes
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._orthogonal_momentum import orthogonal_momentum
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import for_matrices
from gradtx.transforms.scaling import scale_by_learning_rate

MUON = "Jordan et al., 'Muon: An optimizer for hidden layers in neural networks' (2024)"

MuonDimensionNumbers = MatrixAxes


@functools.partial(piece, constants=("ns_coeffs",))
def scale_by_muon(
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    ns_form: Form = "direct",
) -> GradientTransformation:
    """Orthogonalizes momentum: all its singular values become about 1.

    `mu = beta*mu + (1-beta)*g; m = mu / (1-beta**t)`, where `t` is 1 at the first step; with
    Nesterov momentum `m = beta * mu / (1-beta**(t+1)) + (1-beta) * g / (1-beta**t)`. Then `u @ v.H`
    of the singular value decomposition `m = u @ s @ v.H`, approximately, see `orthogonalize`.
    Matrices of one shape go through it in one batch, tall ones transposed.

    Args:
      ns_coeffs: the three coefficients of the polynomial, a tuple of three for each step, or
        "standard", "dion" or "polar_express", see `orthogonalize`. Default: those of Jordan et al.
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
      ns_form: the form of the iteration: "direct", "gram", which takes fewer products for matrices
        that are not square, or "svd", which is exact; see `orthogonalize`. Default: "direct".

    Raises:
      ValueError: `ns_coeffs`, `preconditioning` or `ns_form` is unknown, or a leaf is not a matrix
        and has no dimension numbers.

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
    return orthogonal_momentum(
        coefficients_of(ns_coeffs, ns_steps, "scale_by_muon"), ns_steps, beta, eps, mu_dtype,
        nesterov, adaptive, preconditioning, weight_dimension_numbers, ns_form, None,
    )  # fmt: skip


@optimizer(
    MUON,
    family="orthogonalized",
    acts_on="matrices",
    probe={"learning_rate": 0.02},
    usual_rate=0.02,
    constants=("ns_coeffs",),
)
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
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
    ns_form: Form = "direct",
) -> GradientTransformation:
    """Muon: orthogonalized momentum for matrices, and AdamW for all other leaves.

    `p - learning_rate * (f * (u @ v.H) + weight_decay * p)` for a matrix whose momentum is
    `u @ s @ v.H`, see `scale_by_muon`, with `f = sqrt(max(1, columns / rows))`, or
    `f = consistent_rms * sqrt(max(rows, columns))` if `consistent_rms` is given.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      ns_coeffs: the three coefficients of the Newton–Schulz polynomial, a tuple of three for each
        step, or "standard", "dion" or "polar_express", see `orthogonalize`. Default: those of
        Jordan et al.
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
      ns_form: the form of the iteration: "direct", "gram", which takes fewer products for matrices
        that are not square, or "svd", which is exact; see `orthogonalize`. Default: "direct".

    Raises:
      ValueError: `ns_coeffs`, `preconditioning` or `ns_form` is unknown, or `update` was called
        without params.

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
    axes = muon_weight_dimension_numbers

    def factor(rows: int, columns: int) -> Scalar:
        if consistent_rms is None:
            return max(1.0, columns / max(rows, 1)) ** 0.5
        return consistent_rms * max(rows, columns) ** 0.5

    of_matrices = chain(
        orthogonal_momentum(
            coefficients_of(ns_coeffs, ns_steps, "muon"),
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov,
            adaptive,
            preconditioning,
            axes,
            ns_form,
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
    return for_matrices(of_matrices, of_the_rest, axes, ("muon", "adam"))
