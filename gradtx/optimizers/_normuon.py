"""NorMuon and AdaMuon: Muon with second moments of the orthogonalized momentum."""

import functools
from typing import Literal, NamedTuple

import jax.numpy as jnp

from gradtx._roles import Slot, UnsignedSlot, UnsignedStatistic, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import abs_sq, ema, plus, root, times
from gradtx.engine.rules import Slots
from gradtx.linear_algebra.orthogonalizing import (
    COEFFICIENTS,
    Coefficients,
    Form,
    Named,
    coefficients_of,
    orthogonalized,
)
from gradtx.matrices.matrixwise import matrixwise
from gradtx.optimizers._matrices import HIDDEN, with_norm, with_rest
from gradtx.transforms.matrices import Axes
from gradtx.tree.norms import norms

NORMUON = "Li et al., 'NorMuon: Making Muon more efficient and scalable', arXiv:2510.05491"
ADAMUON = "Si et al., 'AdaMuon: Adaptive Muon Optimizer', arXiv:2507.11005"

RMS = 0.2
"""The root mean square of a step's elements at rate 1, which is about that of Adam's."""


@declared
class ScaleByNorMuonState(NamedTuple):
    """The state of `scale_by_normuon`.

    Attributes:
      mu: moving average of gradients.
      nu: moving average of the mean squares of each output's weights in the orthogonalized average,
        `[..., columns]`.
    """

    mu: Slot
    nu: UnsignedStatistic


@functools.partial(piece, constants=("ns_coeffs",))
def scale_by_normuon(
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    *,
    nesterov: bool = False,
    rescale: Literal["rms", "norm"] = "rms",
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = None,
) -> GradientTransformation:
    """Orthogonalizes momentum, and gives the weights of each output the same mean square.

    `mu = b1*mu + (1-b1)*g; o = orthogonalize(mu); nu = b2*nu + (1-b2)*mean(|o|^2, rows);
    d = o / (sqrt(nu) + eps); 0.2 * sqrt(rows * columns) * d / norm(d)`. With Nesterov momentum `o`
    is that of `b1*mu + (1-b1)*g`. A column of a matrix has the weights of one output.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.95.
      b2: the decay rate of the average of squares. Default: 0.95.
      eps: added to the root of `nu`, and to the norm before the orthogonalization. Default: 1e-8.
      nesterov: whether to use Nesterov momentum, as the authors' program does. Default: False, as
        in the paper.
      rescale: "rms", the paper's: the elements of the result have a root mean square of 0.2; or
        "norm", that of the authors' program: the result has the norm of `o`, times
        `sqrt(max(1, columns / rows))`. Default: "rms".
      ns_coeffs: the coefficients of the iteration, or their name; see `orthogonalize`. Default:
        those of Jordan et al.
      ns_steps: the number of steps of the iteration. Default: 5.
      ns_form: the form of the iteration: "direct", "gram" or "svd". Default: "direct".
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: `rescale`, `ns_coeffs` or `ns_form` is unknown, or a leaf is not a matrix and has
        no axes.

    Source: Li et al., "NorMuon: Making Muon more efficient and scalable", arXiv:2510.05491,
    Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_normuon(ns_form="svd")
      >>> g = jnp.array([[3.0, 0.0], [0.0, -1.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[ 0.283  0.   ]
       [ 0.    -0.283]]
    """
    coefficients = coefficients_of(ns_coeffs, ns_steps, "scale_by_normuon")

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), nu=jnp.zeros_like(jnp.sum(abs_sq(p), 1)))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        m = ema(g, mu, b1) if nesterov else mu
        o = orthogonalized(m, coefficients, ns_steps, ns_form, "frobenius", eps)
        rows, columns = g.shape[1:]
        nu = ema(jnp.sum(abs_sq(o), 1) / max(rows, 1), s.nu, b2)
        d = o / plus(root(nu), eps)[:, None]
        if rescale == "rms":
            u = with_norm(d, RMS * (rows * columns) ** 0.5)
        else:
            u = times(
                max(1.0, columns / max(rows, 1)) ** 0.5, with_norm(d, norms(o, axis=(1, 2))[0])
            )
        return u, Slots(mu=mu, nu=nu)

    axes = weight_dimension_numbers
    return matrixwise(
        ScaleByNorMuonState,
        init,
        update,
        axes=axes,
        argument="weight_dimension_numbers",
        name="scale_by_normuon",
    )


@optimizer(
    NORMUON,
    family="orthogonalized",
    acts_on="matrices",
    probe={"learning_rate": 0.02, "weight_dimension_numbers": None},
    usual_rate=0.02,
    constants=("ns_coeffs",),
)
def normuon(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    nesterov: bool = False,
    rescale: Literal["rms", "norm"] = "rms",
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = HIDDEN,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """NorMuon: orthogonalized momentum with the same mean square for each output's weights.

    `p - learning_rate * (u + weight_decay * p)` with the result `u` of `scale_by_normuon` for the
    matrices of hidden layers; AdamW, or another optimizer, for all other leaves.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.95.
      b2: the decay rate of the average of squares. Default: 0.95.
      eps: added to the root of the mean squares, and to the norm before the orthogonalization.
        Default: 1e-8; the authors' program adds 1e-10 and 1e-7.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0; the paper takes 0.1.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      nesterov: whether to use Nesterov momentum, as the authors' program does. Default: False, as
        in the paper.
      rescale: "rms", the paper's: the elements of a step at rate 1 have a root mean square of 0.2;
        or "norm", that of the authors' program: the norm of the orthogonalized momentum, times
        `sqrt(max(1, columns / rows))`, as Muon's. Default: "rms".
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
      ValueError: `rescale`, `ns_coeffs` or `ns_form` is unknown, or `update` was called without
        params.

    Source: Li et al., "NorMuon: Making Muon more efficient and scalable", arXiv:2510.05491.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.normuon(0.1)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update({"w": 3 * jnp.eye(2), "b": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["w"].round(3) + 0.0, updates["b"])
      [[-0.028  0.   ]
       [ 0.    -0.028]] [-0.1 -0.1]
    """
    directions = scale_by_normuon(
        b1, b2, eps, nesterov=nesterov, rescale=rescale, ns_coeffs=ns_coeffs, ns_steps=ns_steps,
        ns_form=ns_form, weight_dimension_numbers=weight_dimension_numbers,
    )  # fmt: skip
    return with_rest(
        directions, learning_rate, weight_decay, mask, weight_dimension_numbers, of_rest
    )


@declared
class ScaleByAdaMuonState(NamedTuple):
    """The state of `scale_by_adamuon`.

    Attributes:
      mu: decaying sum of gradients.
      nu: moving average of the squares of the orthogonalized sum.
    """

    mu: Slot
    nu: UnsignedSlot


@functools.partial(piece, constants=("ns_coeffs",))
def scale_by_adamuon(
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    *,
    nesterov: bool = False,
    sign: bool = True,
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = None,
) -> GradientTransformation:
    """Orthogonalizes the signs of momentum, and divides by the root of the second moment.

    `mu = b1*mu + g; o = orthogonalize(sign(mu)); nu = b2*nu + (1-b2)*|o|^2;
    d = o / (sqrt(nu) + eps); 0.2 * sqrt(rows * columns) * d / norm(d)`. The norm makes a bias
    correction of `nu` unnecessary. With Nesterov momentum `o` is that of `b1*mu + g`.

    Args:
      b1: the decay rate of the sum of gradients. Default: 0.95.
      b2: the decay rate of the average of squares. Default: 0.95.
      eps: added to the root of `nu`, and to the norm before the orthogonalization. Default: 1e-8.
      nesterov: whether to use Nesterov momentum, as the authors' program does. Default: False, as
        in the paper.
      sign: whether to take signs before the orthogonalization; the authors' program does not.
        Default: True, as in the paper.
      ns_coeffs: the coefficients of the iteration, or their name; see `orthogonalize`. Default:
        those of Jordan et al.
      ns_steps: the number of steps of the iteration. Default: 5.
      ns_form: the form of the iteration: "direct", "gram" or "svd". Default: "direct".
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: `ns_coeffs` or `ns_form` is unknown, or a leaf is not a matrix and has no axes.

    Source: Si et al., "AdaMuon: Adaptive Muon Optimizer", arXiv:2507.11005, version 3.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_adamuon()
      >>> g = jnp.array([[3.0, -2.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[ 0.2 -0.2]]
    """
    coefficients = coefficients_of(ns_coeffs, ns_steps, "scale_by_adamuon")

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), nu=jnp.zeros_like(abs_sq(p)))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        mu = g + times(b1, s.mu)
        m = g + times(b1, mu) if nesterov else mu
        m = jnp.sign(m) if sign else m
        o = orthogonalized(m, coefficients, ns_steps, ns_form, "frobenius", eps)
        nu = ema(abs_sq(o), s.nu, b2)
        rows, columns = g.shape[1:]
        u = with_norm(o / plus(root(nu), eps), RMS * (rows * columns) ** 0.5)
        return u, Slots(mu=mu, nu=nu)

    axes = weight_dimension_numbers
    return matrixwise(
        ScaleByAdaMuonState,
        init,
        update,
        axes=axes,
        argument="weight_dimension_numbers",
        name="scale_by_adamuon",
    )


@optimizer(
    ADAMUON,
    family="orthogonalized",
    acts_on="matrices",
    probe={"learning_rate": 0.02, "weight_dimension_numbers": None},
    usual_rate=0.001,
    constants=("ns_coeffs",),
)
def adamuon(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    nesterov: bool = False,
    sign: bool = True,
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = HIDDEN,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """AdaMuon: orthogonalized signs of momentum, divided by the root of their second moment.

    `p - learning_rate * (u + weight_decay * p)` with the result `u` of `scale_by_adamuon` for the
    matrices of hidden layers; AdamW, or another optimizer, for all other leaves. The elements of
    `u` have a root mean square of 0.2, about that of Adam, so that its learning rates apply.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the sum of gradients. Default: 0.95.
      b2: the decay rate of the average of squares. Default: 0.95, as `b1`: the paper has one rate
        for both. The authors' program takes 0.999.
      eps: added to the root of the second moment, and to the norm before the orthogonalization.
        Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0; the paper takes 0.1.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      nesterov: whether to use Nesterov momentum, as the authors' program does. Default: False, as
        in the paper.
      sign: whether to take signs before the orthogonalization; the authors' program does not.
        Default: True, as in the paper.
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

    Source: Si et al., "AdaMuon: Adaptive Muon Optimizer", arXiv:2507.11005.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adamuon(0.1)
      >>> params = {"w": jnp.ones((1, 2)), "b": jnp.zeros(2)}
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> print(updates["w"].round(3))
      [[-0.02 -0.02]]
    """
    directions = scale_by_adamuon(
        b1, b2, eps, nesterov=nesterov, sign=sign, ns_coeffs=ns_coeffs, ns_steps=ns_steps,
        ns_form=ns_form, weight_dimension_numbers=weight_dimension_numbers,
    )  # fmt: skip
    return with_rest(
        directions, learning_rate, weight_decay, mask, weight_dimension_numbers, of_rest
    )
