"""Private names of optax that published programs import."""

from collections.abc import Callable, Mapping, Sequence

import jax
from jax.typing import DTypeLike

from gradtx import numerics, tree
from gradtx.engine import base
from gradtx.engine.base import Array, Params, PyTree, Scalar
from gradtx.linear_algebra.orthogonalizing import COEFFICIENTS, Coefficients, Preconditioning
from gradtx.optimizers import MuonDimensionNumbers, MuonState, scale_by_muon
from gradtx.transforms import scale_by_learning_rate


def canonicalize_dtype(dtype: DTypeLike | None) -> DTypeLike | None:
    """Returns the dtype that JAX uses for a dtype: float32 for float64 unless x64 is enabled.

    Args:
      dtype: a dtype; `None` is returned unchanged.
    """
    return None if dtype is None else jax.dtypes.canonicalize_dtype(dtype)


def orthogonalize_via_newton_schulz(
    x: Array,
    ns_coeffs: Coefficients,
    ns_steps: int = 5,
    preconditioning: Preconditioning = "frobenius",
    eps: Scalar = 1e-8,
    dimension_numbers: MuonDimensionNumbers | None = None,
) -> Array:
    """Returns a matrix with its singular values moved towards 1, as `scale_by_muon` does.

    Args:
      x: the matrix, or a tensor with `dimension_numbers`.
      ns_coeffs: three coefficients of a polynomial, or three for each step.
      ns_steps: the number of steps, if one polynomial is used for all. Default: 5.
      preconditioning: the norm to divide by first. Default: "frobenius".
      eps: added to the norm. Default: 1e-8.
      dimension_numbers: the axes of a tensor's matrices. Default: `None`, `x` is a matrix.
    """
    tx = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta=0.0,
        eps=eps,
        nesterov=False,
        preconditioning=preconditioning,
        weight_dimension_numbers=dimension_numbers,
    )
    return tx.update(x, tx.init(x))[0]


PRIVATE: Mapping[str, Mapping[str, object]] = {
    "base": {
        **{name: x for name, x in vars(base).items() if not name.startswith("_")},
        "NO_PARAMS_MSG": "update needs the parameters: tx.update(updates, state, params)",
        "PRNGKey": Array,
        "Shape": Sequence[int],
    },
    "numerics": {name: x for name, x in vars(numerics).items() if not name.startswith("_")},
    "transform": {"_scale_by_learning_rate": scale_by_learning_rate},
    "utils": {"canonicalize_dtype": canonicalize_dtype, "cast_tree": tree.cast},
    "contrib._muon": {
        "MuonDimensionNumbers": MuonDimensionNumbers,
        "MuonState": MuonState,
        "WeightDimNumOrFn": MuonDimensionNumbers | PyTree | Callable[[Params], PyTree],
        "orthogonalize_via_newton_schulz": orthogonalize_via_newton_schulz,
        "_DEFAULT_NS_COEFFS": COEFFICIENTS["standard"],
    },
}
"""The names, by module: `base` is `optax._src.base`, `contrib._muon` is `optax.contrib._muon`."""
