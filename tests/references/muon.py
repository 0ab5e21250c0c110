"""Muon."""

from math import sqrt

import numpy as np

from gradtx import MuonDimensionNumbers
from references.adams import scale_by_adam
from references.common import descend, optimizer, piece


def polar(m, coefficients, steps, preconditioning, eps):
    """Jordan et al. (2024): the polynomial `a x + b (x x') x + c (x x')^2 x`, again and again."""
    if m.shape[0] > m.shape[1]:
        return polar(m.T, coefficients, steps, preconditioning, eps).T
    singular = np.linalg.svd(m, compute_uv=False)
    if preconditioning == "frobenius":
        x = m / (np.sqrt(np.sum(singular**2)) + eps)
    elif preconditioning == "spectral":
        x = m / (np.max(singular) + eps)
    elif preconditioning == "schatten":  # arXiv:2506.10935
        x = m / np.sum(singular**4) ** 0.25
    else:  # arXiv:2512.04632
        x = m / np.sqrt(np.sum(np.abs(m @ m.conj().T), axis=1, keepdims=True))
    table = [coefficients] * steps if np.ndim(coefficients) == 1 else coefficients
    for a, b, c in table:
        g = x @ x.conj().T
        x = a * x + b * g @ x + c * g @ g @ x
    return x


def orthogonal(m, ns_coeffs, ns_steps, preconditioning, eps, ns_form):
    """The Gram form computes the same; the singular value decomposition is exact."""
    if ns_form == "svd":
        u, s, vh = np.linalg.svd(m, full_matrices=False)
        return (u * (s > 1e-12 * s[0])) @ vh  # the vectors of 0 are not unique
    return polar(m, ns_coeffs, ns_steps, preconditioning, eps)


def scale_by_muon(
    gradients,
    ns_coeffs=(3.4445, -4.775, 2.0315),
    ns_steps=5,
    beta=0.95,
    eps=1e-8,
    nesterov=True,
    adaptive=False,
    preconditioning="frobenius",
    weight_dimension_numbers=None,
    ns_form="direct",
):
    """Jordan et al. (2024), with Adam's bias correction."""
    mu, out = 0.0, []
    for t, g in enumerate(gradients, start=1):
        mu = beta * mu + (1 - beta) * g
        m = mu / (1 - beta**t)
        if nesterov:
            m = beta * mu / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        o = orthogonal(m, ns_coeffs, ns_steps, preconditioning, eps, ns_form)
        out.append(np.sum((m.conj() * o).real) * o if adaptive else o)
    return out


DION = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
OF_MATRICES = {
    "ns_coeffs": [DION],
    "ns_steps": [3],
    "ns_form": ["svd", {"ns_form": "gram", "ns_steps": 2}],
    "beta": [0.5],
    "adaptive": [True],
    "preconditioning": ["aol", "spectral", "schatten"],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree)],
    "muon_weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, MuonDimensionNumbers())],
    "consistent_rms": [0.2],
    "adam_b1": [0.5],
    "adam_b2": [0.9],
    "adam_eps_root": [1e-2],
    "adam_weight_decay": [0.3],
    "adam_learning_rate": [0.01],
}
# Numbers are no matrices and take AdamW's steps, of which these are NAdam's.
# Five polynomials magnify a rounding by up to their slopes, 500 for the smallest singular values;
# 16 ulps were seen.
ATTRIBUTES = {"moved": OF_MATRICES, "shape": (3, 5), "cancels": True, "ulps": 64}


scale_by_muon = piece(**ATTRIBUTES)(scale_by_muon)


@optimizer(
    {"adam_b1": 0.5, "adam_b2": 0.5, "eps": 0.0},
    (-0.1 * 8 / 3 / 2, -0.2 * 86 / 21 / sqrt(12), 0.3 * 106 / 105 / sqrt(52 / 7)),
    **ATTRIBUTES,
)
def muon(
    gradients,
    start,
    learning_rate,
    eps=1e-8,
    weight_decay=0.0,
    nesterov=True,
    adam_b1=0.9,
    adam_b2=0.999,
    adam_eps_root=0.0,
    adam_weight_decay=0.0,
    adam_learning_rate=None,
    muon_weight_dimension_numbers=None,
    consistent_rms=None,
    **of_matrices,
):
    """Jordan et al. (2024); what is no matrix is left to AdamW. The factors: arXiv:2502.16982."""
    if np.ndim(start) != 2:
        directions = scale_by_adam(gradients, adam_b1, adam_b2, eps, adam_eps_root, nesterov)
        own = learning_rate if adam_learning_rate is None else adam_learning_rate
        return descend(directions, start, own, adam_weight_decay)
    rows, columns = start.shape
    factor = max(1.0, columns / rows) ** 0.5
    if consistent_rms is not None:
        factor = consistent_rms * max(rows, columns) ** 0.5
    directions = scale_by_muon(gradients, eps=eps, nesterov=nesterov, **of_matrices)
    return descend([factor * u for u in directions], start, learning_rate, weight_decay)
