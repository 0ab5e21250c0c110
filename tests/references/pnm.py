"""PNM and AdaPNM."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared

NEGATIVE = {"b0": [0.0, 0.4]}


def differences(gradients, b1, b0):
    """arXiv:2103.17182, eq. 5 and 6."""
    m, out = [0.0, 0.0], []
    for g in gradients:
        m.append(b1**2 * m[-2] + (1 - b1**2) * g)
        out.append(((1 + b0) * m[-1] - b0 * m[-2]) / np.sqrt((1 + b0) ** 2 + b0**2))
    return out


# the averages with a decay of 1/4 are 3/2, 3 and -9/8
@optimizer(
    {"b1": 0.5},
    (-0.3 / sqrt(5), -0.9 / sqrt(5), 0.3 * 5.25 / sqrt(5)),
    moved=NEGATIVE,
    cancels=True,
)
def pnm(gradients, start, learning_rate, b1=0.9, b0=1.0, weight_decay=0.0, mask=None):
    """arXiv:2103.17182, Algorithm 2."""
    return descend(differences(gradients, b1, b0), start, learning_rate, weight_decay)


# each of them, divided by 1/2, 3/4 and 7/8, is 6 / sqrt(5); the maxima are 2, 9, 9
@optimizer(
    {**DECAYS, "eps": 0.0},
    (-0.1 * 3 / sqrt(5), -0.2 * 6 / sqrt(60), 0.3 * 6 / sqrt(5 * 72 / 7)),
    moved=NEGATIVE,
    cancels=True,
)
def adapnm(
    gradients, start, learning_rate, b1=0.9, b2=0.999, b0=1.0, eps=1e-8, weight_decay=0.0, mask=None
):
    """arXiv:2103.17182, Algorithm 3."""
    v, largest, out = 0.0, 0.0, []
    for t, (g, u) in enumerate(zip(gradients, differences(gradients, b1, b0), strict=True), 1):
        v = b2 * v + (1 - b2) * squared(g)
        largest = np.maximum(largest, v)
        out.append(u / (1 - b1**t) / (np.sqrt(largest / (1 - b2**t)) + eps))
    return descend(out, start, learning_rate, weight_decay)
