"""AdamG."""

from math import sqrt

import numpy as np

from references.common import DECAYS, optimizer, rate, squared


# s is v: 2, 9, 13/2; r: 1, 5, 23/4; r * g: 2, 20, -23/2, whose averages are 1, 21/2, -1/2
@optimizer(
    {**DECAYS, "b3": 0.5, "coefficient": 1.0, "power": 1.0, "eps": 0.0},
    (-0.1, -0.2 * 14 / sqrt(12), 0.3 * 4 / 7 / sqrt(52 / 7)),
    moved={"b3": [0.5], "coefficient": [0.5], "power": [0.5, 0.0]},
    ulps=16,  # powers are exact to a few ulps only
)
def adamg(
    gradients,
    start,
    learning_rate=1.0,
    b1=0.95,
    b2=0.999,
    b3=0.95,
    coefficient=0.2,
    power=0.24,
    eps=1e-8,
):
    """arXiv:2405.04376, Algorithm 2."""
    m, v, r, steps = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        v = b2 * v + (1 - b2) * squared(g)
        r = b3 * r + (1 - b3) * coefficient * v**power
        m = b1 * m + (1 - b1) * r * g
        eta = min(rate(learning_rate, t - 1), 1 / np.sqrt(t))
        steps.append(-eta * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))
    return steps
