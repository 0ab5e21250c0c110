"""AdaMod."""

from math import sqrt

import numpy as np

from references.common import DECAYS, optimizer, rate, squared

# the averages of the rates 0.1 / 2, 0.2 / sqrt(12), 0.3 / sqrt(52/7), all below the rates
AVERAGE = 0.0125 + 0.1 / sqrt(12)


@optimizer(
    {**DECAYS, "b3": 0.5, "eps": 0.0},
    (-0.05, -AVERAGE * 10 / 3, -(AVERAGE / 2 + 0.15 / sqrt(52 / 7)) * 2 / 7),
    moved={"b3": [0.0, 0.99]},
)
def adamod(gradients, start, learning_rate, b1=0.9, b2=0.999, b3=0.999, eps=1e-8):
    """arXiv:1910.12249, Algorithm 1."""
    m, v, average, steps = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        own = rate(learning_rate, t - 1) / (np.sqrt(v / (1 - b2**t)) + eps)
        average = b3 * average + (1 - b3) * own
        steps.append(-np.minimum(own, average) * m / (1 - b1**t))
    return steps
