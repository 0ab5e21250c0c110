"""MADGRAD."""

from math import cbrt, sqrt

import numpy as np

from references.common import optimizer, piece, rate, squared

MOVED = {"momentum": [0.0, 0.5]}


@piece(required={"learning_rate": 0.1}, moved=MOVED, cancels=True)
def scale_by_madgrad(gradients, start, learning_rate, momentum=0.9, eps=1e-6, weight_decay=0.0):
    """Defazio and Jelassi, arXiv:2101.11075, Algorithm 1, on gradients of a loss with a penalty;
    their c is one minus the momentum."""
    c = 1 - momentum
    x, s, v, steps = start, 0.0, 0.0, []
    for k, g in enumerate(gradients):
        weight = rate(learning_rate, k) * np.sqrt(k + 1)
        g = g + weight_decay * x
        s = s + weight * g
        v = v + weight * squared(g)
        z = start - s / (np.cbrt(v) + eps)
        new = (1 - c) * x + c * z
        steps.append(new - x)
        x = new
    return steps


# weights 0.1, 0.2 sqrt(2), 0.3 sqrt(3); z is the start, 1, minus s / (cbrt(v) + 1/2)
A, B = 0.2 * sqrt(2), 0.3 * sqrt(3)
FIRST = 0.2 / (cbrt(0.4) + 0.5)
SECOND = (0.2 + 4 * A) / (cbrt(0.4 + 16 * A) + 0.5)
THIRD = (0.2 + 4 * A - 2 * B) / (cbrt(0.4 + 16 * A + 4 * B) + 0.5)


@optimizer(
    {"momentum": 0.5, "eps": 0.5},
    (-FIRST / 2, -SECOND / 2 + FIRST / 4, -THIRD / 2 + SECOND / 4 + FIRST / 8),
    moved=MOVED,
    cancels=True,
    # Steps of a tenth are added to parameters of ten, and their roundings come back.
    ulps=1000,
)
def madgrad(gradients, start, learning_rate, **hyperparameters):
    """Defazio and Jelassi, arXiv:2101.11075, Algorithm 1."""
    return scale_by_madgrad(gradients, start, learning_rate, **hyperparameters)
