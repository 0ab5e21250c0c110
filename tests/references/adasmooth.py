"""AdaSmooth."""

from math import sqrt

import numpy as np

from references.common import optimizer, rate, squared


# The parameter goes straight, so that squares enter with the weight 1/4: v = 1, 3/4 + 4, 57/16 + 1.
@optimizer(
    {"b1": 0.5, "b2": 0.75, "eps": 0.0},
    (-0.2, -0.2 * 4 / sqrt(4.75), 0.3 * 2 / sqrt(4.5625)),
    moved={"window": [4]},
    cancels=True,
    ulps=100,  # differences of parameters, which are much larger than a step
)
def adasmooth(gradients, start, learning_rate, b1=0.5, b2=0.99, eps=1e-6, window=None):
    """arXiv:2204.00825, Algorithm 1, with the ratio since the start of the window."""
    x = origin = start
    path, v, step, steps = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients):
        if window and t % window == 0:
            origin, path = x - step, 0.0
        path = path + np.abs(step)
        moved = np.abs(x - origin)
        e = np.divide(moved, path, out=np.ones_like(moved), where=path > 0)
        c = (b2 - b1) * e + (1 - b2)
        v = c**2 * squared(g) + (1 - c**2) * v
        step = -rate(learning_rate, t) * g / np.sqrt(v + eps)
        steps.append(step)
        x = x + step
    return steps
