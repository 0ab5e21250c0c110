"""AdaShift."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


# keep = 1: divided by the last gradients, 4 / 2 and -2 / sqrt(12)
@optimizer(
    {**DECAYS, "keep": 1, "eps": 0.0},
    (0.0, -0.2 * 2, 0.3 * 2 / sqrt(12)),
    moved={"keep": [1, 5]},
)
def adashift(gradients, start, learning_rate, keep=10, b1=0.9, b2=0.999, eps=1e-10):
    """arXiv:1810.00143, Algorithm 3, with the largest square of a leaf as phi."""
    v, out = 0.0, []
    for t, g in enumerate(gradients, start=1):
        if t <= keep:
            out.append(np.zeros_like(g))
            continue
        v = b2 * v + (1 - b2) * np.max(squared(gradients[t - 1 - keep]))
        weights = [b1**i for i in range(keep)]
        m = sum(w * gradients[t - 1 - i] for i, w in enumerate(weights)) / sum(weights)
        out.append(m / (np.sqrt(v / (1 - b2 ** (t - keep))) + eps))
    return descend(out, start, learning_rate)
