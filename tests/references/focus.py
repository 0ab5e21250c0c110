"""FOCUS."""

import numpy as np

from references.common import optimizer, rate


# The momentum is positive. The parameters are 1, 9/10, 8/10; from the second step on they are below
# their average, so that steps are half as long.
@optimizer(
    {"b1": 0.5, "b2": 0.5, "gamma": 0.5},
    (-0.1, -0.1, -0.15),
    moved={"gamma": [0.0, 0.5], "weight_decay": [0.3]},
    cancels=True,
    ulps=500,  # the sign of a complex difference of near numbers
)
def focus(gradients, start, learning_rate, b1=0.9, b2=0.999, gamma=0.1, weight_decay=0.0):
    """arXiv:2501.12243, Algorithm 1; its average of parameters with bias correction, written
    as a mean with weights, which is exact for equal numbers."""
    x, m, mean, steps = start, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        mean = mean + (1 - b2) / (1 - b2**t) * (x - mean)
        u = np.sign(m) + gamma * np.sign(x - mean) + weight_decay * mean
        steps.append(-rate(learning_rate, t - 1) * u)
        x = x + steps[-1]
    return steps
