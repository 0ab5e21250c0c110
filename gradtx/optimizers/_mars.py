"""MARS with AdamW, Lion and Muon: steps from gradients of reduced variance."""

from gradtx.catalog import optimizer
from gradtx.engine.base import (
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.linear_algebra.orthogonalizing import (
    COEFFICIENTS,
    Coefficients,
    Form,
    Named,
    coefficients_of,
)
from gradtx.matrices.layout import MatrixAxes
from gradtx.optimizers._adam import scale_by_adam
from gradtx.optimizers._matrices import HIDDEN, with_rest
from gradtx.optimizers._orthogonal_momentum import orthogonal_momentum
from gradtx.optimizers._sign import scale_by_sign
from gradtx.transforms.averaging import ema
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import Axes
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.variance import mars

MARS = (
    "Yuan et al., 'MARS: Unleashing the Power of Variance Reduction for Training Large Models', "
    "arXiv:2411.10438"
)


@optimizer(
    "Liu et al., 'MARS-M: When Variance Reduction Meets Matrices', arXiv:2510.21800",
    family="orthogonalized",
    acts_on="matrices",
    probe={"learning_rate": 0.02, "weight_dimension_numbers": None},
    usual_rate=0.003,
    constants=("ns_coeffs",),
)
def mars_muon(
    learning_rate: ScalarOrSchedule,
    gamma: Scalar = 0.025,
    b1: Scalar = 0.95,
    max_norm: Scalar = 1.0,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.1,
    mask: MaskOrFn | None = None,
    *,
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = HIDDEN,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """MARS-M: Muon with gradients that are corrected by their change since the last step.

    `c` is the corrected gradient, see `mars`; `mu = b1*mu + (1-b1)*c;
    p - learning_rate * (0.2 * sqrt(max(rows, columns)) * orthogonalize(mu) + weight_decay * p)`
    for the matrices of hidden layers; AdamW, or another optimizer, for all other leaves. This is
    the approximate form, without a second gradient at each step. The authors' program multiplies
    the first gradient by `1 + gamma * b1/(1-b1)`, as if the one before it had been zero.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      gamma: the strength of the correction; 0 for none. Default: 0.025.
      b1: the decay rate of the average of corrected gradients. Default: 0.95.
      max_norm: the largest norm of a matrix's corrected gradient; `math.inf` for no limit. Default:
        1.
      eps: added to the norm before the orthogonalization. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.1.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      ns_coeffs: the coefficients of the iteration, or their name; see `orthogonalize`. Default:
        those of Jordan et al.
      ns_steps: the number of steps of the iteration. Default: 5.
      ns_form: the form of the iteration: "direct", "gram" or "svd". Default: "direct".
      weight_dimension_numbers: which leaves are matrices, and their axes: a pytree of `MatrixAxes`,
        with `None` for other leaves, or a function of the parameters that returns one; `None` for
        all leaves with two axes. Default: `hidden_matrices()`.
      of_rest: the optimizer of all other leaves, with its own learning rate. Default: `adamw` with
        the same learning rate, weight decay and mask, and `b2 = 0.95`.

    Raises:
      ValueError: `ns_coeffs` or `ns_form` is unknown, or `update` was called without params.

    Source: Liu et al., "MARS-M: When Variance Reduction Meets Matrices", arXiv:2510.21800.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.mars_muon(0.1, weight_decay=0.0, ns_form="svd")
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update({"w": 3 * jnp.eye(2), "b": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["w"].round(3) + 0.0)
      [[-0.028  0.   ]
       [ 0.    -0.028]]
    """
    axes = MatrixAxes() if weight_dimension_numbers is None else weight_dimension_numbers
    directions = chain(
        mars(gamma, b1, max_norm, weight_dimension_numbers=axes),
        orthogonal_momentum(
            coefficients_of(ns_coeffs, ns_steps, "mars_muon"),
            ns_steps,
            b1,
            eps,
            None,
            nesterov=False,
            adaptive=False,
            preconditioning="frobenius",
            axes=weight_dimension_numbers,
            form=ns_form,
            factor=lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,
        ),
    )
    return with_rest(
        directions, learning_rate, weight_decay, mask, weight_dimension_numbers, of_rest
    )


@optimizer(
    MARS,
    family="Adam",
    acts_on="leaf",
    probe={"learning_rate": 0.05},
    usual_rate=0.003,
)
def mars_adamw(
    learning_rate: ScalarOrSchedule,
    gamma: Scalar = 0.025,
    b1: Scalar = 0.95,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    max_norm: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """MARS-AdamW: AdamW with gradients that are corrected by their change since the last step.

    `c = g + gamma * b1/(1-b1) * (g - last); c = c * min(1, max_norm / norm(c))` for each leaf; then
    the step of `adamw` for `c` in place of the gradient. It is for training with noisy gradients,
    such as of language models. It is `chain(mars(...), adamw(...))`; see `mars`. This is the
    approximate form, without a second gradient at each step. The authors' program uses plain AdamW
    for all leaves but matrices, and multiplies the first gradient by `1 + gamma * b1/(1-b1)`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 3e-3.
      gamma: the strength of the correction; 0 for none. Default: 0.025.
      b1: the decay rate of the average of corrected gradients. Default: 0.95.
      b2: the decay rate of the average of their squares. Default: 0.99.
      eps: added to the root. Default: 1e-8.
      max_norm: the largest norm of a leaf's corrected gradient; `math.inf` for no limit. Default:
        1.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large
    Models", arXiv:2411.10438.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.mars_adamw(1e-3, weight_decay=0.1)
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.0012]
    """
    return chain(
        mars(gamma, b1, max_norm),
        scale_by_adam(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(MARS, family="sign", acts_on="leaf", probe={"learning_rate": 0.02}, usual_rate=3e-4)
def mars_lion(
    learning_rate: ScalarOrSchedule,
    gamma: Scalar = 0.025,
    b1: Scalar = 0.95,
    max_norm: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """MARS-Lion: the sign of momentum of gradients that are corrected by their change.

    `c` is the corrected gradient, see `mars`; `mu = b1*mu + (1-b1)*c;
    p - learning_rate * (sign(mu) + weight_decay * p)`. The correction takes the part of Lion's
    interpolation, which is itself a correction of momentum by the change of the gradient. This is
    the approximate form, without a second gradient at each step.

    Args:
      learning_rate: a number, a scalar array or a schedule; smaller than that of `mars_adamw`.
      gamma: the strength of the correction; 0 for none. Default: 0.025.
      b1: the decay rate of the average of corrected gradients. Default: 0.95.
      max_norm: the largest norm of a leaf's corrected gradient; `math.inf` for no limit. Default:
        1.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large
    Models", arXiv:2411.10438.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.mars_lion(1e-3, weight_decay=0.1)
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.0012]
    """
    return chain(
        mars(gamma, b1, max_norm),
        ema(b1, debias=False),
        scale_by_sign(),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
