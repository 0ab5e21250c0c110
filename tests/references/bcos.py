"""BCOS."""

from math import sqrt

import numpy as np

from references.common import descend, optimizer, squared


# The last m is 2, 2, 3, so that v is 4, 3/4 * 4 + 16/4, 3/4 * 9 + 4/4, and the new one 2, 3, 1/2.
@optimizer(
    {"b1": 0.5, "eps": 0.0, "weight_decay": 0.0},
    (-0.1, -0.6 / sqrt(7), -0.15 / sqrt(7.75)),
)
def bcos(gradients, start, learning_rate, b1=0.9, b2=None, eps=1e-6, weight_decay=0.1, mask=None):
    """arXiv:2507.08963, BCOSW-c, which starts with the first gradient."""
    m, out = gradients[0], []
    beta = 1 - (1 - b1) ** 2 if b2 is None else b2
    for g in gradients:
        v = beta * squared(m) + (1 - beta) * squared(g)
        m = b1 * m + (1 - b1) * g
        out.append(m / (np.sqrt(v) + eps))
    return descend(out, start, learning_rate, weight_decay)
