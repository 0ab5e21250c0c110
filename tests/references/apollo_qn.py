"""Apollo, the quasi-Newton method."""

import numpy as np

from references.common import descend, optimizer


# mu = 2, 10/3, 2/7; the curvatures 0, -(4/3)/2, (64/21)/(10/3) are below 1
@optimizer(
    {"b1": 0.5, "eps": 0.0},
    (-0.2, -0.2 * 10 / 3, -0.3 * 2 / 7),
    # With b1 = 0, differences of raw gradients amplify rounding errors from step to step.
    moved={"rebound": [0.05], "b1": [0.3]},
    in_double={"b1": [0.0]},
    cancels=True,
)
def apollo_qn(
    gradients, start, learning_rate, b1=0.9, eps=1e-4, rebound=1.0, weight_decay=0.0, mask=None
):
    """arXiv:2009.13586, Algorithm 1, with the plain learning rate."""
    m, b, d, out = 0.0, np.zeros_like(start), np.zeros_like(start), []
    for t, g in enumerate(gradients, start=1):
        last = m
        m = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t) * m + (1 - b1) / (1 - b1**t) * g
        size = np.sum(d**4) ** 0.25 + eps
        if size > 0:
            b = b - (np.sum(d * (m - last)) + np.sum(d * b * d)) / size**4 * d**2
        d = m / np.maximum(np.abs(b), rebound)
        out.append(d)
    return descend(out, start, learning_rate, weight_decay)
