"""AdaBelief."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, piece, squared


@piece()
def scale_by_belief(gradients, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False):
    """Zhuang et al., arXiv:2010.07468, Algorithm 2, with an epsilon for each of the two places;
    Nesterov: as in NAdam, Dozat (2016)."""
    m, s, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * squared(g - m) + eps_root
        m_hat, s_hat = m / (1 - b1**t), s / (1 - b2**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        out.append(m_hat / (np.sqrt(s_hat) + eps))
    return out


# g - m: 1, 3/2, -9/4. s = s/2 + (g - m)^2 / 2 + 1/2: 1, 17/8, 131/32. s_hat: 2, 17/6, 131/28
@optimizer(
    {**DECAYS, "eps": 1.0, "eps_root": 0.5},
    (
        -0.1 * 2 / (sqrt(2) + 1),
        -0.2 * 10 / 3 / (sqrt(17 / 6) + 1),
        -0.3 * 2 / 7 / (sqrt(131 / 28) + 1),
    ),
)
def adabelief(gradients, start, learning_rate, weight_decay=None, **hyperparameters):
    """Zhuang et al., arXiv:2010.07468, Algorithm 2; the decay is decoupled, as in their program."""
    steps = scale_by_belief(gradients, **hyperparameters)
    return descend(steps, start, learning_rate, weight_decay or 0.0)
