"""NovoGrad."""

from math import sqrt

import numpy as np

from references.common import optimizer, piece, rate, squared

# v: 4, 20/2, 14/2; the sum with a decay of 1/2 of g / sqrt(v) + x/2
M_1 = 1 + 0.5
X_2 = 1 - 0.1 * M_1
M_2 = 0.5 * M_1 + 4 / sqrt(10) + 0.5 * X_2
X_3 = X_2 - 0.2 * M_2
M_3 = 0.5 * M_2 - 2 / sqrt(7) + 0.5 * X_3


@optimizer(
    {"b1": 0.5, "b2": 0.5, "eps": 0.0, "weight_decay": 0.5},
    (-0.1 * M_1, -0.2 * M_2, -0.3 * M_3),
    cancels=True,
)
def novograd(
    gradients, start, learning_rate, b1=0.9, b2=0.25, eps=1e-6, eps_root=0.0, weight_decay=0.0
):
    """Ginsburg et al., arXiv:1905.11286, Algorithm 1, with the eps at the first step too."""
    x, m, v, steps = start, 0.0, None, []
    for t, g in enumerate(gradients):
        size = np.sum(squared(g))
        v = size if v is None else b2 * v + (1 - b2) * size
        m = b1 * m + g / (np.sqrt(v + eps_root) + eps) + weight_decay * x
        steps.append(-rate(learning_rate, t) * m)
        x = x + steps[-1]
    return steps


@piece(cancels=True)
def scale_by_novograd(gradients, start, eps=1e-8, **hyperparameters):
    """Ginsburg et al., arXiv:1905.11286, Algorithm 1, lines 7 to 9."""
    return novograd(gradients, start, -1.0, eps=eps, **hyperparameters)
