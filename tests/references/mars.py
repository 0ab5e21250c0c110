"""MARS with AdamW, Lion and Muon."""

from math import sqrt

import numpy as np

from references.adams import scale_by_adam
from references.common import DECAYS, descend, optimizer
from references.muon import orthogonal
from references.normuon import ATTRIBUTES, MOVED, STANDARD, adamw_beside, by_hand
from references.signs import angle

CORRECTION = {"gamma": [0.3], "max_norm": [0.5, np.inf]}


def corrected(gradients, gamma, b1, max_norm):
    """arXiv:2411.10438, Algorithm 2, with the last batch's gradient, and `c = g` at first."""
    last, out = gradients[0], []
    for g in gradients:
        c = g + gamma * b1 / (1 - b1) * (g - last)
        out.append(c * min(1, max_norm / np.linalg.norm(c)))
        last = g
    return out


@optimizer(
    {"weight_decay": 0.0},
    by_hand(),
    **{**ATTRIBUTES, "moved": MOVED | CORRECTION},
)
def mars_muon(
    gradients,
    start,
    learning_rate,
    gamma=0.025,
    b1=0.95,
    max_norm=1.0,
    eps=1e-8,
    weight_decay=0.1,
    ns_coeffs=STANDARD,
    ns_steps=5,
    ns_form="direct",
    weight_dimension_numbers=None,
    of_rest=None,
):
    """arXiv:2510.21800."""
    if np.ndim(start) != 2:
        return adamw_beside(gradients, start, learning_rate, weight_decay)
    mu, out = 0.0, []
    for t, c in enumerate(corrected(gradients, gamma, b1, max_norm), start=1):
        mu = b1 * mu + (1 - b1) * c
        m = mu / (1 - b1**t)  # a factor that matters for eps alone
        o = orthogonal(m, ns_coeffs, ns_steps, "frobenius", eps, ns_form)
        out.append(0.2 * sqrt(max(start.shape)) * o)
    return descend(out, start, learning_rate, weight_decay)


# c = 2, 4 + 1/2 * 2, -2 - 1/2 * 6; their averages are 1, 3 and -1, those of squares 2, 27/2, 77/4
@optimizer(
    {**DECAYS, "gamma": 0.5, "max_norm": np.inf, "eps": 0.0, "weight_decay": 0.0},
    (-0.1, -0.2 * 4 / sqrt(18), 0.3 * 8 / 7 / sqrt(22)),
    moved=CORRECTION,
    cancels=True,
)
def mars_adamw(
    gradients,
    start,
    learning_rate,
    gamma=0.025,
    b1=0.95,
    b2=0.99,
    eps=1e-8,
    max_norm=1.0,
    weight_decay=0.01,
    mask=None,
):
    """arXiv:2411.10438, Algorithm 3."""
    out = scale_by_adam(corrected(gradients, gamma, b1, max_norm), b1, b2, eps)
    return descend(out, start, learning_rate, weight_decay)


# with decay: x = 1, 0.85, 0.565
@optimizer(
    {"gamma": 0.5, "b1": 0.5, "max_norm": np.inf, "weight_decay": 0.5},
    (-0.1 * 1.5, -0.2 * 1.425, -0.3 * (-1 + 0.2825)),
    moved=CORRECTION,
    cancels=True,
    ulps=16,  # the correction multiplies roundings by gamma * b1 / (1 - b1), here 5.7
)
def mars_lion(
    gradients,
    start,
    learning_rate,
    gamma=0.025,
    b1=0.95,
    max_norm=1.0,
    weight_decay=0.01,
    mask=None,
):
    """arXiv:2411.10438, Algorithm 4."""
    m, out = 0.0, []
    for c in corrected(gradients, gamma, b1, max_norm):
        m = b1 * m + (1 - b1) * c
        out.append(angle(m))
    return descend(out, start, learning_rate, weight_decay)
