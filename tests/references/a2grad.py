"""A2Grad."""

from math import sqrt

import numpy as np

from references.common import optimizer, rate, squared

# The means are 2, 3, 4/3, the deviations 0, 1, -10/3, v: 0, 1/2, 1/4 + 50/9 = 209/36. The rates are
# 1/20, 1/10 and C, so that the fast iterate is 9/10, 5/10 and then 1/2 + 2 C, from 17/30.
C = 0.3 / (2 / 3 + sqrt(209 / 12))


@optimizer(
    {"lipschitz": 1.0, "beta": 1.0, "rho": 0.5},
    (-0.1, -1 / 3, 0.4 * (1 / 2 + 2 * C - 17 / 30) + 0.6 * C),
    moved={
        "learning_rate": [0.5, lambda count: 0.5 + count % 3],
        "lipschitz": [1.0],
        "beta": [1.0],
        "rho": [0.9],
    },
    cancels=True,
    ulps=100,  # differences of parameters, which are much larger than a step
)
def a2grad(gradients, start, learning_rate=1.0, beta=10.0, lipschitz=10.0, rho=0.5):
    """arXiv:1810.00553: the rewritten form of Algorithm 1, with the rates of A2Grad-exp."""
    x = y = start
    total, average, v, steps = 0.0, 0.0, 0.0, []
    for k, g in enumerate(gradients):
        total = total + g
        delta = g - total / (k + 1)
        average = rho * average + (1 - rho) * squared(delta) if k else squared(delta)
        v = np.maximum(v, average)
        c = rate(learning_rate, k) / (2 * lipschitz / (k + 1) + beta * np.sqrt((k + 1) * v))
        x = x - c * g
        now, after = 2 / (k + 2), 2 / (k + 3)
        steps.append(after * (x - y) - (1 - after) * now * c * g)
        y = y + steps[-1]
    return steps
