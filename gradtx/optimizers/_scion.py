"""Scion: steps of a given size in a norm that is chosen for each leaf."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.equality import Value
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.made import Freezer, Frozen, Made
from gradtx.engine.numerics import times
from gradtx.engine.paths import is_none
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
from gradtx.optimizers._matrices import HIDDEN
from gradtx.transforms.averaging import ema
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import Axes, axes_or_none, hidden_matrices
from gradtx.transforms.partitioning import partition
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.norms import norms as norms_of

SCION = (
    "Pethick et al., 'Training Deep Learning Models with Norm-Constrained LMOs', arXiv:2502.07529"
)

Norm = Literal["spectral", "sign", "inputs", "outputs", "rms"]
NORMS: Sequence[Norm] = get_args(Norm)
ALL = hidden_matrices(embeddings_and_outputs=True)
"""The axes of all matrices, those of embeddings and output layers too."""


@dataclasses.dataclass(frozen=True, eq=False)
class UsualNorms(Value):
    """The function that chooses the paper's norms for language models.

    Attributes:
      axes: the axes of all matrices.
    """

    axes: Axes = ALL

    def __call__(self, tree: Params) -> PyTree:
        """Returns "spectral" for matrices of hidden layers, "sign" for others, "rms" for the
        rest."""
        treedef = jax.tree.structure(tree, is_leaf=is_none)
        hidden, known = axes_or_none(HIDDEN, tree), axes_or_none(self.axes, tree)
        return treedef.unflatten(
            "rms" if a is None else "sign" if h is None else "spectral"
            for h, a in zip(hidden, known, strict=True)
        )

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns its frozen value."""
        return freezer.call(Made(UsualNorms, ((self.axes,), {})))


@functools.partial(piece, constants=("ns_coeffs",))
def scale_by_scion(
    beta: Scalar = 0.9,
    radius: Scalar = 1.0,
    sign_radius: Scalar = 1.0,
    norms: PyTree | Callable[[Params], PyTree] | None = None,
    eps: Scalar = 1e-8,
    *,
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = ALL,
) -> GradientTransformation:
    """Replaces momentum by the direction of steepest ascent in a norm, which has a given size.

    `mu = beta*mu + (1-beta)*g`; the result is `radius * d`, where `d` maximizes `sum(d * mu)` in
    the unit ball of the leaf's norm. For matrices, of which a row has the weights of one input, and
    a column those of one output:

    - "spectral": `d = sqrt(columns / rows) * orthogonalize(mu)`, for hidden layers;
    - "sign": `d = sign(mu) / rows`, with `sign_radius`, for embeddings and output layers;
    - "inputs": `d = sqrt(columns) * mu / norm(mu, each row)`, for embeddings, the paper's ColNorm;
    - "outputs": `d = mu / norm(mu, each column) / sqrt(rows)`, the paper's RowNorm;

    and for vectors "rms": `d = mu / sqrt(mean(|mu|^2))`.

    Args:
      beta: the decay rate of the average of gradients. The authors' `momentum` is `1 - beta`.
        Default: 0.9.
      radius: the size of the result in the leaf's norm. Default: 1.
      sign_radius: the size for leaves with the norm "sign". Default: 1.
      norms: the name of the norm of each leaf: a pytree like the parameters or a prefix of them, or
        a function of the parameters that returns one. Default: "spectral" for the matrices of
        `hidden_matrices()`, "sign" for other matrices, and "rms" for all other leaves.
      eps: added to the norm before the orthogonalization. Default: 1e-8.
      ns_coeffs: the coefficients of the iteration, or their name; see `orthogonalize`. Default:
        those of Jordan et al.
      ns_steps: the number of steps of the iteration. Default: 5.
      ns_form: the form of the iteration: "direct", "gram" or "svd". Default: "direct".
      weight_dimension_numbers: the axes of matrices: a pytree of `MatrixAxes`, with `None` for
        other leaves, or a function of the parameters that returns one; `None` for all leaves with
        two axes. Default: `hidden_matrices(embeddings_and_outputs=True)`.

    Raises:
      ValueError: a name is unknown, or a leaf has a norm of matrices and is none.

    Source: Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs",
    arXiv:2502.07529, Tables 2 to 4.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_scion(norms="inputs")
      >>> g = jnp.array([[3.0, 0.0, 0.0, 4.0], [0.0, -1.0, 0.0, 0.0]])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [[ 1.2  0.   0.   1.6]
       [ 0.  -2.   0.   0. ]]
    """
    axes = weight_dimension_numbers
    coefficients = coefficients_of(ns_coeffs, ns_steps, "scale_by_scion")

    def spectral(g: Array) -> Array:
        rows, columns = g.shape[1:]
        o = orthogonalized(g, coefficients, ns_steps, ns_form, "frobenius", eps)
        return times((columns / max(rows, 1)) ** 0.5, o)

    def by_sign(g: Array) -> Array:
        return jnp.sign(g) / max(g.shape[1], 1)

    def of_inputs(g: Array) -> Array:
        return _unit(g, 2) * g.shape[2] ** 0.5

    def of_outputs(g: Array) -> Array:
        return _unit(g, 1) / max(g.shape[1], 1) ** 0.5

    def each(direction: Callable[[Array], Array], size: Scalar) -> GradientTransformation:
        def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
            return times(size, direction(g)), Slots()

        return matrixwise(
            EmptyState,
            None,
            update,
            axes=lambda tree: _as_tree(axes, tree),
            argument="weight_dimension_numbers",
            name="scale_by_scion",
        )

    def rms(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        return times(radius, _unit(g, None) * g.size**0.5), Slots()

    parts: dict[Hashable, TransformationLike] = {
        "spectral": each(spectral, radius),
        "sign": each(by_sign, sign_radius),
        "inputs": each(of_inputs, radius),
        "outputs": each(of_outputs, radius),
        "rms": leafwise(EmptyState, None, rms, name="scale_by_scion"),
    }
    return chain(
        ema(beta, debias=False), partition(parts, UsualNorms(axes) if norms is None else norms)
    )


def _unit(g: Array, axis: int | None) -> Array:
    """Returns arrays divided by their norms along an axis; zeros stay zero."""
    size = norms_of(g, axis=None if axis is None else (axis,))[0]
    return g / jnp.where(size > 0, size, 1)


def _as_tree(axes: Axes, tree: PyTree) -> PyTree:
    treedef = jax.tree.structure(tree, is_leaf=is_none)
    return treedef.unflatten(axes_or_none(axes, tree))


@optimizer(
    SCION,
    family="orthogonalized",
    acts_on="matrices",
    probe={
        "learning_rate": 0.02,
        "radius": 1.0,
        "sign_radius": 1.0,
        "weight_dimension_numbers": None,
    },
    usual_rate=0.00025,
    constants=("ns_coeffs",),
)
def scion(
    learning_rate: ScalarOrSchedule,
    beta: Scalar = 0.9,
    radius: Scalar = 50.0,
    sign_radius: Scalar = 3000.0,
    norms: PyTree | Callable[[Params], PyTree] | None = None,
    eps: Scalar = 1e-8,
    *,
    constrained: bool = True,
    ns_coeffs: Coefficients | Named = COEFFICIENTS["standard"],
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = ALL,
) -> GradientTransformation:
    """Scion: steps of a given size in a norm chosen for each leaf, which bounds the parameters too.

    `p - learning_rate * (radius * d + p)`, or `p - learning_rate * radius * d` if not constrained,
    with the directions `radius * d` of `scale_by_scion`. If parameters start within the bounds, no
    leaf's norm exceeds its radius. The directions have the same size from the first step to the
    last: the learning rate should decay to 0. For convolutions with windows of side `k` the
    authors' program divides by a further `k`; `multiply_by_path` can do that.

    Args:
      learning_rate: a number, a scalar array or a schedule; at most 1 with constraints.
      beta: the decay rate of the average of gradients. The authors' `momentum` is `1 - beta`.
        Default: 0.9.
      radius: the size of a step at rate 1 in the leaf's norm. Default: 50, the authors' for
        transformers; they take 1 for perceptrons and 8 for convolutions.
      sign_radius: the size for leaves with the norm "sign". Default: 3000, the authors' for
        language models.
      norms: the name of the norm of each leaf: "spectral", "sign", "inputs", "outputs" or "rms", in
        a pytree like the parameters or a prefix of them, or a function of the parameters that
        returns one. Default: "spectral" for the matrices of `hidden_matrices()`, "sign" for other
        matrices, and "rms" for all other leaves.
      eps: added to the norm before the orthogonalization. Default: 1e-8.
      constrained: whether parameters are bounded, by decoupled weight decay with the coefficient 1.
        Default: True.
      ns_coeffs: the coefficients of the iteration, or their name; see `orthogonalize`. Default:
        those of Jordan et al.
      ns_steps: the number of steps of the iteration. Default: 5.
      ns_form: the form of the iteration: "direct", "gram" or "svd". Default: "direct".
      weight_dimension_numbers: the axes of matrices: a pytree of `MatrixAxes`, with `None` for
        other leaves, or a function of the parameters that returns one; `None` for all leaves with
        two axes. Default: `hidden_matrices(embeddings_and_outputs=True)`.

    Raises:
      ValueError: a name is unknown, a leaf has a norm of matrices and is none, or `update` was
        called without params.

    Source: Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs",
    arXiv:2502.07529.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scion(0.1, radius=2.0)
      >>> params = {"b": jnp.zeros(2)}
      >>> print(tx.update({"b": jnp.array([3.0, -3.0])}, tx.init(params), params)[0]["b"])
      [-0.2  0.2]
    """
    directions = scale_by_scion(
        beta, radius, sign_radius, norms, eps, ns_coeffs=ns_coeffs, ns_steps=ns_steps,
        ns_form=ns_form, weight_dimension_numbers=weight_dimension_numbers,
    )  # fmt: skip
    decay = [add_decayed_weights(1.0)] if constrained else []
    return chain(directions, *decay, scale_by_learning_rate(learning_rate))
