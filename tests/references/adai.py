"""Adai."""

import numpy as np

from references.common import MASK, decays_of, optimizer, rate


# One number is its own mean: momentum with a decay rate of 1/2 and bias correction.
@optimizer(
    {"b0": 0.5},
    (-0.2, -0.2 * 10 / 3, -0.3 * 2 / 7),
    moved={"b0": [0.5], "mask": [{"mask": MASK, "weight_decay": 0.3}]},
    coupled=True,
)
def adai(gradients, start, learning_rate, b0=0.1, b2=0.99, eps=1e-3, weight_decay=0.0, mask=None):
    """arXiv:2006.15815, Algorithm 2."""
    x, m, v, product, steps = start, 0.0, 0.0, 1.0, []
    for t, g in enumerate(gradients, start=1):
        v = b2 * v + (1 - b2) * g**2
        v_hat = v / (1 - b2**t)
        b1 = np.clip(1 - b0 / np.mean(v_hat) * v_hat, 0, 1 - eps)
        m = b1 * m + (1 - b1) * g
        product = product * b1
        u = m / (1 - product) + decays_of(x, weight_decay, mask) * x
        steps.append(-rate(learning_rate, t - 1) * u)
        x = x + steps[-1]
    return steps
