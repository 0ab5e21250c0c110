"""Ano."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


# The momentum stays positive; v is 2, then 1 + 8, then 9/2 - 2, as 4 is below 9.
@optimizer(
    {**DECAYS, "eps": 0.0},
    (-0.1, -0.2 * 4 / sqrt(12), -0.3 * 2 / sqrt(20 / 7)),
    moved={"b2": [0.9]},
)
def ano(gradients, start, learning_rate, b1=0.92, b2=0.99, eps=1e-8, weight_decay=0.0, mask=None):
    """arXiv:2508.18258, Algorithm 1, with the decay and bias correction of pytorch_optimizer."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v - (1 - b2) * np.sign(v - squared(g)) * squared(g)
        out.append(np.abs(g) * np.sign(m) / (np.sqrt(v / (1 - b2**t)) + eps))
    return descend(out, start, learning_rate, weight_decay)
