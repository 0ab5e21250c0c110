"""MARS with Muon."""

from math import sqrt

import numpy as np

from references.common import descend, optimizer
from references.muon import orthogonal
from references.normuon import ATTRIBUTES, MOVED, STANDARD, adamw_beside, by_hand


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
    **{**ATTRIBUTES, "moved": MOVED | {"gamma": [0.3], "max_norm": [0.5, np.inf]}},
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
