"""AdaNorm with Adam."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


# the norms 2, 4, 2 have the averages 1, 5/2, 9/4, so that the last gradient counts as -9/4
@optimizer(
    {**DECAYS, "gamma": 0.5, "eps": 0.0},
    (-0.1, -0.2 * 5 / sqrt(27), -0.3 / 7 / sqrt(52 / 7)),
    moved={"gamma": [0.5, 0.0]},
)
def adanorm(gradients, start, learning_rate, b1=0.9, b2=0.999, gamma=0.95, eps=1e-8):
    """arXiv:2210.06364, Algorithm 2."""
    m, v, e, out = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        size = np.sqrt(np.sum(squared(g)))
        e = gamma * e + (1 - gamma) * size
        m = b1 * m + (1 - b1) * (g * e / size if e > size else g)
        v = b2 * v + (1 - b2) * squared(g)
        out.append(m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))
    return descend(out, start, learning_rate)
