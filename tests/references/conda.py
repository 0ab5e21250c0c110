"""Conda."""

from math import sqrt

import numpy as np

import gradtx
from references.adams import X_ADAMW
from references.common import DECAYS, descend, optimizer, piece, squared
from references.soap import ADAM, Side, mean_over_null_spaces, nowhere, of_rest_or, resolved


def scale_by_conda(
    gradients,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    update_proj_gap=2000,
    scale=1.0,
    weight_dimension_numbers=None,
):
    """Wang et al., arXiv:2509.24218; Adam's bias corrections."""
    if gradients[0].shape[0] > gradients[0].shape[1]:
        turned = scale_by_conda([g.T for g in gradients], b1, b2, eps, update_proj_gap, scale)
        return [u.T for u in turned]
    m, v, out, side, other = 0.0, 0.0, [], *map(Side, gradients[0].shape)
    other.rank = len(other.basis)
    for k, g in enumerate(gradients):
        m = b1 * m + (1 - b1) * g
        if k % update_proj_gap == 0:
            side.basis, values, _ = np.linalg.svd(m)
            side.rank = np.sum(values > values[0] * resolved(len(g)))
        back = side.basis.conj().T
        v = mean_over_null_spaces(b2 * v + (1 - b2) * squared(back @ g), side, other)
        m_hat, v_hat = back @ m / (1 - b1 ** (k + 1)), v / (1 - b2 ** (k + 1))
        out.append(scale * side.basis @ (m_hat / (np.sqrt(v_hat) + eps)))
    return out


OF_MATRICES = {
    "update_proj_gap": [1, 3],
    "scale": [0.25],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
}
ATTRIBUTES = {"moved": OF_MATRICES, "shape": (3, 4), "cancels": True, "ulps": 1000}

scale_by_conda = piece(**ATTRIBUTES)(scale_by_conda)


# Numbers are no matrices and take AdamW's steps.
@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (
        -0.1 * (1 + 0.5),
        -0.2 * (10 / 3 / sqrt(12) + 0.5 * 0.85),
        -0.3 * (2 / 7 / sqrt(52 / 7) + 0.5 * X_ADAMW),
    ),
    **ATTRIBUTES,
)
def conda(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    of_rest=None,
    weight_dimension_numbers=None,
    **of_matrices,
):
    """Wang et al., arXiv:2509.24218, with decoupled weight decay."""
    if np.ndim(start) != 2 or weight_dimension_numbers is nowhere:
        return of_rest_or(of_rest, gradients, start, learning_rate, b1, b2, eps, weight_decay)
    directions = scale_by_conda(gradients, b1, b2, eps, **of_matrices)
    return descend(directions, start, learning_rate, weight_decay)
