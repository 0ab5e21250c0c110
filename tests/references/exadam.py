"""EXAdam."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


# Both factors are 1 + 1/2^t, so that their quotient is its root; (m + g) / weight: 6, 26/3, -2.
@optimizer(
    {**DECAYS, "eps": 0.0},
    (
        -0.1 * 6 * sqrt(3 / 2) / 2,
        -0.2 * 26 / 3 * sqrt(5 / 4) / sqrt(12),
        0.3 * 2 * sqrt(9 / 8) / sqrt(52 / 7),
    ),
)
def exadam(
    gradients, start, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, mask=None
):
    """arXiv:2412.20302, Algorithm 1."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        d1 = 1 + v / (v + eps) * b2**t
        d2 = 1 + squared(m) / (squared(m) + eps) * b1**t
        m_tilde, g_tilde = m / (1 - b1**t) * d1, g / (1 - b1**t) * d1
        v_tilde = v / (1 - b2**t) * d2
        out.append((m_tilde + g_tilde) / (np.sqrt(v_tilde) + eps))
    return descend(out, start, learning_rate, weight_decay)
