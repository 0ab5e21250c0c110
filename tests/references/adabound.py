"""AdaBound and AMSBound."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared

BOUNDS = {"final_ratio": [0.5, 50.0], "gamma": [0.5, 0.0]}


def bounded(gradients, b1, b2, final_ratio, gamma, eps, second):
    """arXiv:1902.09843, Algorithm 2, with Adam's bias corrections inside of the bounds."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        rate = np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(second(v)) + eps)
        low = final_ratio * (1 - 1 / (gamma * t + 1))
        high = final_ratio * (1 + 1 / (gamma * t)) if gamma else np.inf
        out.append(np.clip(rate, low, high) * m)
    return out


# the rates 1, 2 / sqrt(27), sqrt(8/7 / 6.5) are within 1/2 and 2, then raised to 2/3 and 3/4
@optimizer(
    {**DECAYS, "final_ratio": 1.0, "gamma": 1.0, "eps": 0.0},
    (-0.1, -0.2 * 5 / 3, -0.3 * 3 / 16),
    moved=BOUNDS,
)
def adabound(
    gradients, start, learning_rate, b1=0.9, b2=0.999, final_ratio=100.0, gamma=1e-3, eps=1e-8
):
    """arXiv:1902.09843, Algorithm 2."""
    directions = bounded(gradients, b1, b2, final_ratio, gamma, eps, lambda v: v)
    return descend(directions, start, learning_rate)


# the first rate is lowered to 0.35 * 2, the others stay; the largest v are 2, 9, 9
@optimizer(
    {**DECAYS, "final_ratio": 0.35, "gamma": 1.0, "eps": 0.0},
    (-0.1 * 0.7, -0.2 * 5 / sqrt(27), -0.3 * sqrt(8 / 7) / 12),
    moved=BOUNDS,
)
def amsbound(
    gradients, start, learning_rate, b1=0.9, b2=0.999, final_ratio=100.0, gamma=1e-3, eps=1e-8
):
    """arXiv:1902.09843, Algorithm 3."""
    largest = [0.0]

    def second(v):
        largest[0] = np.maximum(largest[0], v)
        return largest[0]

    directions = bounded(gradients, b1, b2, final_ratio, gamma, eps, second)
    return descend(directions, start, learning_rate)
