"""FTRL-Proximal."""

from math import sqrt

import numpy as np

from references.common import optimizer, rate


# without regularization, p - lr * g / (1 + sqrt(n)), for n = 4, 20, 24
@optimizer(
    {},
    (-0.2 / 3, -0.8 / (1 + sqrt(20)), 0.6 / (1 + sqrt(24))),
    moved={"beta": [0.0, 2.0], "l1": [0.3, 5.0], "l2": [0.5]},
    cancels=True,
)
def ftrl(gradients, start, learning_rate, beta=1.0, l1=0.0, l2=0.0):
    """McMahan et al. (KDD 2013), Algorithm 1, whose z_i and 1/eta_i are here times alpha; around
    the first parameters in place of 0."""
    w, z, n, steps = start, -beta * start, 0.0, []
    for t, g in enumerate(gradients):
        alpha = rate(learning_rate, t)
        sigma = np.sqrt(n + g**2) - np.sqrt(n)
        n = n + g**2
        z = z + alpha * g - sigma * w
        free = -(z - np.sign(z) * alpha * l1) / (beta + np.sqrt(n) + alpha * l2)
        new = np.where(np.abs(z) > alpha * l1, free, 0.0)
        steps.append(new - w)
        w = new
    return steps
