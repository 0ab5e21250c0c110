"""Nero."""

from math import sqrt

import numpy as np

from references.common import DECAYS, optimizer, rate, squared


# One number is a neuron without a constraint, and its scale is that of the start, 1.
@optimizer(
    {"b2": DECAYS["b2"]},
    (-0.1, -0.2 * 4 / sqrt(12), 0.3 * 2 / sqrt(52 / 7)),
    moved={"constrained": [False], "output_axis": [1]},
    shape=(2, 3),
    cancels=True,
    ulps=100,
)
def nero(gradients, start, learning_rate, b2=0.999, constrained=True, output_axis=0):
    """arXiv:2102.07227, Algorithm 1, and the authors' program, which projects the start."""
    axes = tuple(a for a in range(np.ndim(start)) if a != output_axis) if np.ndim(start) > 1 else ()

    def norm(x):
        return np.sqrt(np.sum(squared(x), axes, keepdims=True))

    def project(x):
        if not (constrained and axes):
            return x
        x = x - np.mean(x, axes, keepdims=True)
        return x / norm(x)

    given, x, v, steps = start, project(start), 0.0, []
    scale = np.mean(norm(x))
    for t, g in enumerate(gradients, start=1):
        v = b2 * v + (1 - b2) * squared(norm(g))
        x = project(x - rate(learning_rate, t - 1) * scale * g / np.sqrt(v / (1 - b2**t)))
        steps.append(x - given)
        given = x
    return steps
