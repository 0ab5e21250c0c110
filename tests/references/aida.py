"""Aida."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


def product(x, y):
    return np.sum((np.conj(x) * y).real)


# Numbers are parallel, so that projections change nothing and this is AdaBelief: g - m is 1, 3/2,
# -9/4, the averages of its square 1/2, 11/8, 103/32.
@optimizer(
    {**DECAYS, "eps": 0.0, "eps_root": 0.0},
    (-0.1 * 2, -0.2 * 10 / 3 / sqrt(11 / 6), -0.3 * 2 / 7 / sqrt(103 / 28)),
    moved={"projections": [1, 3, 4]},
    cancels=True,
)
def aida(gradients, start, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=1e-8, projections=2):
    """arXiv:2203.13273, Algorithm 1: each of two vectors is projected onto the other, again and
    again."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        of_m, of_g = m, g
        for _ in range(projections):
            along = product(of_g, of_m)
            of_m, of_g = (
                along / product(of_g, of_g) * of_g,
                along / product(of_m, of_m) * of_m,
            )
        v = b2 * v + (1 - b2) * squared(of_m - of_g) + eps_root
        out.append(m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))
    return descend(out, start, learning_rate)
