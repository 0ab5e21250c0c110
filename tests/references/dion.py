"""Dion and Dion2."""

from math import ceil, sqrt

import numpy as np

import gradtx
from references.common import descend, optimizer, piece
from references.muon import OF_MATRICES, orthogonal
from references.normuon import adamw_beside, by_hand

MOVED = OF_MATRICES | {
    "rank": [1, None],
    "parts": [3, 1],
    "first": ["unit"],
    "key": [3],
    "weight_dimension_numbers": [gradtx.hidden_matrices()],
    "of_rest": [gradtx.sgd(0.1)],
}
ATTRIBUTES = {"moved": MOVED, "shape": (3, 5), "cancels": True, "ulps": 64}


@piece(**ATTRIBUTES, required={"first": "unit"})
def scale_by_dion(
    gradients, beta=0.95, rank=None, first="unit", key=None, weight_dimension_numbers=None
):
    """arXiv:2504.05295, Algorithm 1, for `outputs x inputs`: our transpose."""
    assert first == "unit"
    outputs, inputs = gradients[0].T.shape
    rank = rank or min(outputs, inputs)
    q, m, out = np.eye(inputs, rank), 0.0, []
    for g in gradients:
        b = m + np.conj(g.T)
        p, _ = np.linalg.qr(b @ q)
        r = np.conj(b.T) @ p
        m = b - (1 - beta) * p @ np.conj(r.T)
        q = r / np.linalg.norm(r, axis=0)
        out.append(sqrt(outputs / inputs) * np.conj((p @ np.conj(q.T)).T))
    return out


@optimizer({"weight_decay": 0.0}, by_hand(), **ATTRIBUTES)
def dion(gradients, start, learning_rate, weight_decay=0.01, of_rest=None, **of_matrices):
    """arXiv:2504.05295."""
    if np.ndim(start) != 2:
        return adamw_beside(gradients, start, learning_rate, weight_decay)
    return descend(scale_by_dion(gradients, **of_matrices), start, learning_rate, weight_decay)


# Coefficients for the lower bound 1e-3, with the safety factor: tests/linear_algebra compares them
# with those that the paper prints.
TABLES = {steps: gradtx.polar_express(steps) for steps in (2, 3, 5)}


# Polar Express multiplies small singular values, and rounding errors beside them, by up to 8 at the
# first step and by 4 at the next ones; the momentum of a few columns has such values more often
# than all of it. 56 ulps were seen, 95 with `beta=0.5`, and 178 with `parts=3`.
OF_FEW = {**ATTRIBUTES, "ulps": 128, "wider": {"parts": 512, "beta": 256}}


@piece(**OF_FEW)
def scale_by_dion2(
    gradients,
    parts=4,
    beta=0.95,
    eps=1e-8,
    ns_coeffs="polar_express",
    ns_steps=5,
    ns_form="direct",
    weight_dimension_numbers=None,
):
    """arXiv:2512.16928, for `outputs x inputs`: our transpose."""
    table = TABLES[ns_steps] if ns_coeffs == "polar_express" else ns_coeffs
    outputs, inputs = gradients[0].T.shape
    m, out = np.zeros_like(gradients[0].T), []
    for g in gradients:
        m = m + g.T
        if outputs <= inputs:
            sums = np.sum(np.abs(m), axis=1)
            k = np.argsort(-sums)[: ceil(outputs / parts)], slice(None)
        else:
            sums = np.sum(np.abs(m), axis=0)
            k = slice(None), np.argsort(-sums)[: ceil(inputs / parts)]
        u = np.zeros_like(m)
        u[k] = orthogonal(m[k], table, ns_steps, "frobenius", eps, ns_form)
        m[k] = beta * m[k]
        out.append(sqrt(outputs / inputs) * u.T)
    return out


@optimizer({"weight_decay": 0.0}, by_hand(), **OF_FEW)
def dion2(
    gradients,
    start,
    learning_rate,
    weight_decay=0.01,
    weight_dimension_numbers=None,
    of_rest=None,
    **of_matrices,
):
    """arXiv:2512.16928."""
    if np.ndim(start) != 2:
        return adamw_beside(gradients, start, learning_rate, weight_decay)
    return descend(scale_by_dion2(gradients, **of_matrices), start, learning_rate, weight_decay)
