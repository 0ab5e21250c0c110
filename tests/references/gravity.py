"""Gravity. Its first velocity is measured in tests/optimizers/test_gravity.py."""

import numpy as np

from references.common import descend, optimizer, squared


# The decay rate is 1/2 in each step; g / (1 + g^4) is 2/17, 4/257, -2/17.
@optimizer(
    {"alpha": 0.0, "beta": 0.5},
    (-0.1 / 17, -0.2 * (1 / 34 + 2 / 257), -0.3 * (1 / 68 + 1 / 257 - 1 / 17)),
    moved={
        "learning_rate": [0.5, lambda count: 1.0 + count % 3],
        "alpha": [0.0],
        "beta": [0.5],
        "key": [3],
    },
    cancels=True,
)
def gravity(gradients, start, learning_rate, alpha, beta=0.9, key=None):
    """arXiv:2101.09192, Algorithm 1, where the first velocity has no variance."""
    assert alpha == 0
    v, out = 0.0, []
    for t, g in enumerate(gradients):
        m = 1 / np.max(np.abs(g))
        zeta = g / (1 + squared(g / m))
        b = (beta * t + 1) / (t + 2)
        v = b * v + (1 - b) * zeta
        out.append(v)
    return descend(out, start, learning_rate)
