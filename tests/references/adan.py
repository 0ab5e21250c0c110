"""Adan."""

from math import sqrt

import numpy as np

from references.common import DECAYS, MASK, descend, optimizer, piece, rate, squared

B3 = {"b3": [0.9]}


@piece(moved=B3, cancels=True)
def scale_by_adan(gradients, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=0.0):
    """Xie et al., arXiv:2208.06677, Algorithm 1, with the authors' bias corrections; the betas of
    the paper are one minus these."""
    beta1, beta2, beta3 = 1 - b1, 1 - b2, 1 - b3
    m, v, n, last, out = 0.0, 0.0, 0.0, gradients[0], []
    for k, g in enumerate(gradients, start=1):
        m = (1 - beta1) * m + beta1 * g
        v = (1 - beta2) * v + beta2 * (g - last)
        n = (1 - beta3) * n + beta3 * squared(g + (1 - beta2) * (g - last))
        m_hat, v_hat, n_hat = m / (1 - b1**k), v / (1 - b2**k), n / (1 - b3**k)
        out.append((m_hat + (1 - beta2) * v_hat) / (np.sqrt(n_hat + eps_root) + eps))
        last = g
    return out


# differences 0, 2, -6 and their averages 0, 1, -5/2, so v_hat: 0, 4/3, -20/7
# g + 1/2 difference: 2, 5, -5; n = 2, 27/2, 77/4, n_hat: 4, 18, 22
# m_hat + 1/2 v_hat: 2, 4, -8/7
X = 0.85 - 0.2 * (4 / sqrt(18) + 0.425)


@optimizer(
    {**DECAYS, "b3": 0.5, "eps": 0.0, "eps_root": 0.0, "weight_decay": 0.5},
    (-0.15, -0.2 * (4 / sqrt(18) + 0.425), -0.3 * (-8 / 7 / sqrt(22) + 0.5 * X)),
    moved={**B3, "proximal": [{"proximal": True, "weight_decay": 0.3, "mask": MASK}]},
    cancels=True,
)
def adan(
    gradients,
    start,
    learning_rate,
    weight_decay=0.0,
    eps_root=1e-8,
    proximal=False,
    **hyperparameters,
):
    """Xie et al., arXiv:2208.06677, Algorithm 1, or with the decay of arXiv:1711.05101."""
    directions = scale_by_adan(gradients, eps_root=eps_root, **hyperparameters)
    if not proximal:
        return descend(directions, start, learning_rate, weight_decay)
    x, steps = start, []
    for t, u in enumerate(directions):
        eta = rate(learning_rate, t)
        steps.append((x - eta * u) / (1 + eta * weight_decay) - x)
        x = x + steps[-1]
    return steps
