"""KATE."""

from math import sqrt

import numpy as np

from references.common import descend, optimizer, squared


# b2 = 4, 20, 24; m2 = 4 + 1, 5 + 16 + 4/5, 21.8 + 4 + 1/6
@optimizer(
    {"eta": 1.0, "eps": 0.0},
    (-0.1 * sqrt(5) / 2, -0.2 * sqrt(21.8) / 5, 0.3 * sqrt(25.8 + 1 / 6) / 12),
    moved={"eta": [0.5]},
)
def kate(gradients, start, learning_rate, eta=0.0, eps=1e-8):
    """arXiv:2403.02648, Algorithm 1."""
    b2, m2, out = 0.0, 0.0, []
    for g in gradients:
        b2 = b2 + squared(g)
        m2 = m2 + eta * squared(g) + squared(g) / (b2 + eps)
        out.append(np.sqrt(m2) * g / (b2 + eps))
    return descend(out, start, learning_rate)
