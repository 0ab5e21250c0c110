"""Padam."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


# the fourth roots of 2, 9 and 9
@optimizer(
    {**DECAYS, "partial": 0.25, "eps": 0.0},
    (-0.1 / 2**0.25, -0.2 * 2.5 / sqrt(3), -0.3 * 0.25 / sqrt(3)),
    moved={"partial": [0.0, 0.5]},
)
def padam(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    partial=0.125,
    eps=1e-8,
    weight_decay=0.0,
    mask=None,
):
    """arXiv:1806.06763, Algorithm 1."""
    m, v, largest, out = 0.0, 0.0, 0.0, []
    for g in gradients:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        largest = np.maximum(largest, v)
        out.append(m / (np.sqrt(largest) + eps) ** (2 * partial))
    return descend(out, start, learning_rate, weight_decay)
