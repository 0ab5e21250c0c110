"""SWATS."""

from math import sqrt

import numpy as np

from references.common import DECAYS, optimizer, rate

# The suggested rates are u / g: 1/2 and U / 4. Their average after two steps is the rate of SGD.
U = 10 / 3 / sqrt(12)
RATE = (0.25 / 2 + U / 8) / (3 / 4)


@optimizer(
    {**DECAYS, "eps": 0.0, "tolerance": 1.0},
    (-0.1, -0.2 * U, 0.3 * RATE),
    moved={"tolerance": [0.0, 0.1, 10.0]},
    coupled=True,
    cancels=True,
)
def swats(gradients, start, learning_rate, b1=0.9, b2=0.999, eps=1e-9, tolerance=1e-6):
    """arXiv:1712.07628, Algorithm 1, in units of the learning rate."""
    m, v, velocity, average, chosen, steps = 0.0, 0.0, 0.0, 0.0, None, []
    for t, g in enumerate(gradients, start=1):
        if chosen is not None:
            velocity = b1 * velocity + g
            steps.append(-rate(learning_rate, t - 1) * chosen * (1 - b1) * velocity)
            continue
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        steps.append(-rate(learning_rate, t - 1) * u)
        along = np.sum(u * g)
        if along != 0:
            gamma = np.sum(u * u) / along
            average = b2 * average + (1 - b2) * gamma
            lam = average / (1 - b2**t)
            if t > 1 and lam > 0 and abs(lam - gamma) < tolerance:
                chosen = lam
    return steps
