"""AdEMAMix and its simplified form."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, piece, rate, squared


def rising(count):
    return 0.5 + 0.1 * (count % 4)


MOVED = {"b3": [0.5, 0.0, rising], "alpha": [0.0, 2.0, rising]}


@piece(moved=MOVED)
def scale_by_ademamix(
    gradients, b1=0.9, b2=0.999, b3=0.9999, alpha=6.0, eps=1e-8, eps_root=0.0, mu_dtype=None
):
    """Pagliardini et al., arXiv:2409.03137, Algorithm 1; eps_root: inside of the root, as well."""
    m1, m2, v, out = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        slow = rate(b3, t - 1)
        m1 = b1 * m1 + (1 - b1) * g
        m2 = slow * m2 + (1 - slow) * g
        v = b2 * v + (1 - b2) * squared(g)
        m1_hat, v_hat = m1 / (1 - b1**t), v / (1 - b2**t)
        out.append((m1_hat + rate(alpha, t - 1) * m2) / (np.sqrt(v_hat + eps_root) + eps))
    return out


# m2 = 3/4 m2 + 1/4 g: 1/2, 11/8, 17/32; m1_hat + 2 m2: 3, 73/12, 151/112; v_hat: 4, 12, 52/7
SECOND = 73 / 12 / sqrt(12)
X = 0.8 - 0.2 * (SECOND + 0.4)


@optimizer(
    {**DECAYS, "b3": 0.75, "alpha": 2.0, "eps": 0.0, "weight_decay": 0.5},
    (-0.1 * (1.5 + 0.5), -0.2 * (SECOND + 0.4), -0.3 * (151 / 112 / sqrt(52 / 7) + 0.5 * X)),
    moved=MOVED,
)
def ademamix(gradients, start, learning_rate, weight_decay=0.0, alpha=5.0, **hyperparameters):
    """Pagliardini et al., arXiv:2409.03137, Algorithm 1."""
    directions = scale_by_ademamix(gradients, alpha=alpha, **hyperparameters)
    return descend(directions, start, learning_rate, weight_decay)


@piece(moved={"alpha": [2.0]})
def scale_by_simplified_ademamix(gradients, b1=0.99, b2=0.95, alpha=0.0, eps=1e-8, eps_root=0.0):
    """Morwani et al., arXiv:2502.02431, with a bias correction for the second moment alone."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + g
        v = b2 * v + (1 - b2) * squared(g)
        out.append((m + alpha * g) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps))
    return out


# m = 1/2 m + g: 2, 5, 1/2; m + 2 g: 6, 13, -7/2
Y = 0.65 - 0.2 * (13 / sqrt(12) + 0.325)


@optimizer(
    {**DECAYS, "alpha": 2.0, "eps": 0.0, "weight_decay": 0.5},
    (-0.1 * (3 + 0.5), -0.2 * (13 / sqrt(12) + 0.325), -0.3 * (-3.5 / sqrt(52 / 7) + 0.5 * Y)),
    moved={"alpha": [2.0]},
)
def simplified_ademamix(gradients, start, learning_rate, weight_decay=0.0, **hyperparameters):
    """Morwani et al., arXiv:2502.02431, with the decay of arXiv:1711.05101."""
    directions = scale_by_simplified_ademamix(gradients, **hyperparameters)
    return descend(directions, start, learning_rate, weight_decay)
