"""AvaGrad."""

import numpy as np

from references.common import MASK, decays_of, optimizer, rate


# The rate of one number, divided by its own size, is 1: momentum remains.
@optimizer(
    {"b1": 0.5},
    (-0.1, -0.5, -0.075),
    moved={"mask": [{"mask": MASK, "weight_decay": 0.3}]},
    coupled=True,
)
def avagrad(
    gradients, start, learning_rate, b1=0.9, b2=0.999, eps=0.1, weight_decay=0.0, mask=None
):
    """arXiv:1912.01823, Algorithm 2."""
    x, m, v, steps = start, 0.0, np.zeros_like(start), []
    for t, g in enumerate(gradients):
        m = b1 * m + (1 - b1) * g
        eta = 1 / (np.sqrt(v) + eps)
        v = b2 * v + (1 - b2) * g**2
        u = eta / np.sqrt(np.mean(eta**2)) * m + decays_of(x, weight_decay, mask) * x
        steps.append(-rate(learning_rate, t) * u)
        x = x + steps[-1]
    return steps
