"""LaProp."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


# u = 2 / 2, 4 / sqrt(12), -2 / sqrt(52/7), averaged with decays of 1/2
@optimizer(
    {**DECAYS, "eps": 0.0},
    (
        -0.1,
        -0.2 * (1 + 4 / sqrt(3)) / 3,
        -0.3 * (1 + 4 / sqrt(3) - 4 * sqrt(7 / 13)) / 7,
    ),
)
def laprop(
    gradients, start, learning_rate, b1=0.9, b2=0.999, eps=1e-15, weight_decay=0.0, mask=None
):
    """arXiv:2002.04839, Algorithm 1."""
    n, m, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        n = b2 * n + (1 - b2) * squared(g)
        m = b1 * m + (1 - b1) * g / (np.sqrt(n / (1 - b2**t)) + eps)
        out.append(m / (1 - b1**t))
    return descend(out, start, learning_rate, weight_decay)
