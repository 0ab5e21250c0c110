"""QHM and QHAdam."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


# half of 2 + 1, 4 + 5/2, -2 + 1/4
@optimizer({"b1": 0.5, "nu": 0.5}, (-0.15, -0.2 * 3.25, 0.3 * 0.875), moved={"nu": [0.2, 1.0]})
def qhm(gradients, start, learning_rate, b1=0.999, nu=0.7):
    """arXiv:1810.06801, eq. 3 and 4."""
    buffer, out = 0.0, []
    for g in gradients:
        buffer = b1 * buffer + (1 - b1) * g
        out.append((1 - nu) * g + nu * buffer)
    return descend(out, start, learning_rate)


# half of 2 + 2, 4 + 10/3, -2 + 2/7; half of 4 + 4, 16 + 12, 4 + 52/7
@optimizer(
    {**DECAYS, "nu1": 0.5, "nu2": 0.5, "eps": 0.0},
    (-0.1, -0.2 * 11 / 3 / sqrt(14), 0.3 * 6 / 7 / sqrt(40 / 7)),
    moved={"nu1": [0.2, 1.0], "nu2": [0.5]},
)
def qhadam(
    gradients,
    start,
    learning_rate,
    b1=0.995,
    b2=0.999,
    nu1=0.7,
    nu2=1.0,
    eps=1e-8,
    weight_decay=0.0,
    mask=None,
):
    """arXiv:1810.06801, eq. 8 to 10."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        top = (1 - nu1) * g + nu1 * m / (1 - b1**t)
        bottom = (1 - nu2) * squared(g) + nu2 * v / (1 - b2**t)
        out.append(top / (np.sqrt(bottom) + eps))
    return descend(out, start, learning_rate, weight_decay)
