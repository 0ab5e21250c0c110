"""diffGrad."""

from math import exp, sqrt

import numpy as np

from references.adams import scale_by_adam
from references.common import DECAYS, descend, optimizer


# the gradient changes by 2, 2 and 6
@optimizer(
    {**DECAYS, "eps": 0.0},
    (
        -0.1 / (1 + exp(-2)),
        -0.2 * 5 / sqrt(27) / (1 + exp(-2)),
        -0.3 * 2 / 7 / sqrt(52 / 7) / (1 + exp(-6)),
    ),
)
def diffgrad(gradients, start, learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """arXiv:1909.11015, Algorithm 1."""
    last, out = 0.0, []
    for g, u in zip(gradients, scale_by_adam(gradients, b1, b2, eps), strict=True):
        out.append(u / (1 + np.exp(-np.abs(last - g))))
        last = g
    return descend(out, start, learning_rate)
