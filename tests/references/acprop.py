"""ACProp."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, piece, squared


@piece()
def scale_by_acprop(gradients, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16):
    """Zhuang et al., arXiv:2110.05454, Algorithm 2, with AdaBelief's bias correction and epsilons;
    before the first step there is no variance, and 1 stands for it."""
    m, s, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        s_hat = 1.0 if t == 1 else s / (1 - b2 ** (t - 1))
        out.append(g / (np.sqrt(s_hat) + eps))
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * squared(g - m) + eps_root
    return out


# g - m: 1, 3/2, -9/4. s = s/2 + (g - m)^2 / 2 + 1/2: 1, 17/8; s_hat before each step: 1, 2, 17/6
X = 0.85 - 0.2 * (4 / (sqrt(2) + 1) + 0.425)


@optimizer(
    {**DECAYS, "eps": 1.0, "eps_root": 0.5, "weight_decay": 0.5},
    (
        -0.1 * (1 + 0.5),
        -0.2 * (4 / (sqrt(2) + 1) + 0.425),
        -0.3 * (-2 / (sqrt(17 / 6) + 1) + 0.5 * X),
    ),
)
def acprop(gradients, start, learning_rate, weight_decay=0.0, **hyperparameters):
    """Zhuang et al., arXiv:2110.05454, Algorithm 2, with the decay of arXiv:1711.05101."""
    directions = scale_by_acprop(gradients, **hyperparameters)
    return descend(directions, start, learning_rate, weight_decay)
