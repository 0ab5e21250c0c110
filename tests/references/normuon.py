"""NorMuon and AdaMuon."""

from math import sqrt

import numpy as np

import gradtx
from references.adams import scale_by_adam
from references.common import descend, optimizer, piece, squared
from references.muon import OF_MATRICES, orthogonal

STANDARD = (3.4445, -4.775, 2.0315)


def adamw_beside(gradients, start, learning_rate, weight_decay):
    """AdamW, as beside methods on matrices."""
    directions = scale_by_adam(gradients, 0.9, 0.95, 1e-8)
    return descend(directions, start, learning_rate, weight_decay)


def by_hand(b2=0.95, eps=1e-8):
    """Three steps of a number, which is no matrix: AdamW's with `b1 = 0.9`."""
    m = [0.2, 0.9 * 0.2 + 0.4, 0.9 * 0.58 - 0.2]
    v = [0.2, 0.95 * 0.2 + 0.8, 0.95 * 0.99 + 0.2]
    weights = [(0.1, 0.05), (0.19, 0.0975), (0.271, 0.142625)]
    return tuple(
        -0.1 * t * (a / wa) / (sqrt(b / wb) + eps)
        for t, (a, b, (wa, wb)) in enumerate(zip(m, v, weights, strict=True), start=1)
    )


MOVED = OF_MATRICES | {
    "rescale": ["norm"],
    "sign": [False],
    "weight_dimension_numbers": [gradtx.hidden_matrices()],
    "of_rest": [gradtx.sgd(0.1)],
}
ATTRIBUTES = {"moved": MOVED, "shape": (3, 5), "cancels": True, "ulps": 64}


@piece(**ATTRIBUTES)
def scale_by_normuon(
    gradients,
    b1=0.95,
    b2=0.95,
    eps=1e-8,
    nesterov=False,
    rescale="rms",
    ns_coeffs=STANDARD,
    ns_steps=5,
    ns_form="direct",
    weight_dimension_numbers=None,
):
    """arXiv:2510.05491, Algorithm 1, for a matrix whose columns are the neurons."""
    mu, nu, out = 0.0, 0.0, []
    for g in gradients:
        rows, columns = g.shape
        mu = b1 * mu + (1 - b1) * g
        m = b1 * mu + (1 - b1) * g if nesterov else mu
        o = orthogonal(m, ns_coeffs, ns_steps, "frobenius", eps, ns_form)
        nu = b2 * nu + (1 - b2) * np.mean(squared(o), axis=0)
        d = o / (np.sqrt(nu) + eps)
        unit = d / np.linalg.norm(d)
        if rescale == "rms":
            out.append(0.2 * sqrt(rows * columns) * unit)
        else:  # normuon.py
            out.append(sqrt(max(1, columns / rows)) * np.linalg.norm(o) * unit)
    return out


@optimizer({}, by_hand(), **ATTRIBUTES)
def normuon(
    gradients,
    start,
    learning_rate,
    weight_decay=0.0,
    weight_dimension_numbers=None,
    of_rest=None,
    **of_matrices,
):
    """arXiv:2510.05491."""
    if np.ndim(start) != 2:
        return adamw_beside(gradients, start, learning_rate, weight_decay)
    return descend(scale_by_normuon(gradients, **of_matrices), start, learning_rate, weight_decay)


@piece(**ATTRIBUTES)
def scale_by_adamuon(
    gradients,
    b1=0.95,
    b2=0.95,
    eps=1e-8,
    nesterov=False,
    sign=True,
    ns_coeffs=STANDARD,
    ns_steps=5,
    ns_form="direct",
    weight_dimension_numbers=None,
):
    """arXiv:2507.11005v3, Algorithm 1."""
    mu, nu, out = 0.0, 0.0, []
    for g in gradients:
        mu = b1 * mu + g
        m = b1 * mu + g if nesterov else mu
        m = m / np.abs(m) if sign else m
        o = orthogonal(m, ns_coeffs, ns_steps, "frobenius", eps, ns_form)
        nu = b2 * nu + (1 - b2) * squared(o)
        d = o / (np.sqrt(nu) + eps)
        out.append(0.2 * sqrt(g.size) * d / np.linalg.norm(d))
    return out


@optimizer({}, by_hand(), **ATTRIBUTES)
def adamuon(
    gradients,
    start,
    learning_rate,
    weight_decay=0.0,
    weight_dimension_numbers=None,
    of_rest=None,
    **of_matrices,
):
    """arXiv:2507.11005v3."""
    if np.ndim(start) != 2:
        return adamw_beside(gradients, start, learning_rate, weight_decay)
    return descend(scale_by_adamuon(gradients, **of_matrices), start, learning_rate, weight_decay)
