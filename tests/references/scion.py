"""Scion."""

from math import sqrt

import numpy as np

import gradtx
from references.common import descend, optimizer, piece
from references.muon import OF_MATRICES, orthogonal

STANDARD = (3.4445, -4.775, 2.0315)


def direction(m, norm, polar):
    """arXiv:2502.07529, Tables 2 to 4, where a matrix is `outputs x inputs`: our transpose."""
    if norm == "rms" or np.ndim(m) < 2:
        return m / np.sqrt(np.mean(np.abs(m) ** 2))
    w = m.T
    outputs, inputs = w.shape
    if norm == "spectral":
        return sqrt(outputs / inputs) * polar(w).T
    if norm == "sign":
        return w.T / np.abs(w.T) / inputs
    if norm == "inputs":
        return (sqrt(outputs) * w / np.linalg.norm(w, axis=0)).T
    return (w / np.linalg.norm(w, axis=1, keepdims=True) / sqrt(inputs)).T


MOVED = OF_MATRICES | {
    "norms": ["sign", "inputs", "outputs", "rms"],
    "radius": [3.0],
    "sign_radius": [{"norms": "sign", "sign_radius": 3.0}],
    "constrained": [False],
    "weight_dimension_numbers": [gradtx.hidden_matrices()],
}
ATTRIBUTES = {"moved": MOVED, "shape": (3, 5), "cancels": True, "ulps": 64}


@piece(**ATTRIBUTES)
def scale_by_scion(
    gradients,
    beta=0.9,
    radius=1.0,
    sign_radius=1.0,
    norms=None,
    eps=1e-8,
    ns_coeffs=STANDARD,
    ns_steps=5,
    ns_form="direct",
    weight_dimension_numbers=None,
):
    """arXiv:2502.07529, the directions of Algorithms 1 and 2, negated."""
    mu, out = 0.0, []
    for g in gradients:
        mu = beta * mu + (1 - beta) * g
        size = sign_radius if norms == "sign" else radius
        d = direction(
            mu,
            norms or "spectral",
            lambda w: orthogonal(w, ns_coeffs, ns_steps, "frobenius", eps, ns_form),
        )
        out.append(size * d)
    return out


# A number is no matrix: its directions are the signs of its averages, 1, 2.5 and 0.25.
@optimizer(
    {"beta": 0.5, "radius": 2.0},
    (-0.1 * (2 + 1), -0.2 * (2 + 0.7), -0.3 * (2 + 0.16)),
    **ATTRIBUTES,
)
def scion(
    gradients, start, learning_rate, radius=50.0, sign_radius=3000.0, constrained=True, **more
):
    """arXiv:2502.07529, Algorithms 1 and 2."""
    directions = scale_by_scion(gradients, radius=radius, sign_radius=sign_radius, **more)
    return descend(directions, start, learning_rate, 1.0 if constrained else 0.0)
