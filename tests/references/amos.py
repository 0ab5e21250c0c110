"""Amos."""

from math import sqrt

import numpy as np

from references.common import optimizer, rate, squared

# g / sqrt(v_hat) is 1, 4 / sqrt(12), -2 / sqrt(52/7), its squares 1, 4/3, 7/13. With the scale 1
# and zeta 1, the second and third step are damped by the decays before them.
Y = 1 - 0.105
B2 = 0.01
C2, D2 = 1 / sqrt(1 + sqrt(0.2) * B2), 1 / (1 + sqrt(0.2) * B2)
DECAY2 = C2 * 0.04 * 4 / 3
STEP2 = -D2 * (0.2 * 4 / sqrt(12) + DECAY2 / 2 * Y)
B3 = B2 + DECAY2 * (1 + B2)
C3, D3 = 1 / sqrt(1 + sqrt(0.3) * B3), 1 / (1 + sqrt(0.3) * B3)
STEP3 = -D3 * (-0.3 * 2 / sqrt(52 / 7) + C3 * 0.09 * 7 / 13 / 2 * (Y + STEP2))


@optimizer(
    {"scale": 1.0, "b2": 0.5, "zeta": 1.0},
    (-0.105, STEP2, STEP3),
    moved={"scale": [2.0], "zeta": [0.0, 1.0], "momentum": [0.5]},
    cancels=True,
)
def amos(gradients, start, learning_rate, scale, b2=0.999, zeta=0.25, momentum=None):
    """arXiv:2210.11693, Algorithm 1, with v and b for each element."""
    x, v, b, average, steps = start, 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        xi = rate(learning_rate, t - 1)
        v = b2 * v + (1 - b2) * squared(g)
        v_hat = v / (1 - b2**t)
        c = (1 + zeta * np.sqrt(xi) * b) ** -0.5
        d = 1 / (1 + zeta * np.sqrt(xi * scale) * b)
        gamma = c * xi**2 / v_hat * squared(g)
        step = -d * (xi * scale / np.sqrt(v_hat) * g + gamma / 2 * x)
        b = b + gamma * (1 + b)
        if momentum is not None:
            average = momentum * average + (1 - momentum) * step
            step = average
        steps.append(step)
        x = x + step
    return steps
