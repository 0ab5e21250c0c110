"""FAdam."""

from math import sqrt

import numpy as np

from references.common import DECAYS, optimizer, rate, squared

# g / sqrt(v_hat) is 1, 4 / sqrt(12), which is clipped to 1, and -2 / sqrt(52/7).
X1 = 1 - 0.075
STEP2 = -0.2 * (0.75 + 0.5 * X1 / sqrt(12))
STEP3 = -0.3 * (0.375 - 1 / sqrt(52 / 7) + 0.5 * (X1 + STEP2) / sqrt(52 / 7))


@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (-0.075, STEP2, STEP3),
    moved={"clip": [0.5, 2.0]},
    cancels=True,
)
def fadam(gradients, start, learning_rate, b1=0.9, b2=0.999, eps=1e-8, clip=1.0, weight_decay=0.01):
    """arXiv:2405.12807, Algorithm 1."""

    def rms(x):
        return np.sqrt(np.mean(squared(x)))

    def clipped(x):
        return x / max(1, rms(x) / clip)

    x, m, f, steps = start, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        b = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        f = b * f + (1 - b) * squared(g)
        scale = np.sqrt(f) + eps * min(rms(g), 1)
        m = b1 * m + (1 - b1) * clipped(g / scale)
        steps.append(-rate(learning_rate, t - 1) * (m + weight_decay * clipped(x / scale)))
        x = x + steps[-1]
    return steps
