"""Yogi."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, piece, squared

START = 1e-6


@piece()
def scale_by_yogi(
    gradients, b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0, initial_accumulator_value=START
):
    """Zaheer et al. (NeurIPS 2018), Algorithm 2, with Adam's bias corrections."""
    m, v, out = 0.0, initial_accumulator_value, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - squared(g)) * squared(g)
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        out.append(m_hat / (np.sqrt(v_hat + eps_root) + eps))
    return out


# beside its start, v = 0 + 4/2, 2 + 16/2, 10 - 4/2; divided by 1/2, 3/4, 7/8
@optimizer(
    {**DECAYS, "eps": 1.0},
    (
        -0.1 * 2 / (sqrt(2 * (2 + START)) + 1),
        -0.2 * 10 / 3 / (sqrt(4 / 3 * (10 + START)) + 1),
        -0.3 * 2 / 7 / (sqrt(8 / 7 * (8 + START)) + 1),
    ),
)
def yogi(gradients, start, learning_rate, **hyperparameters):
    """Zaheer et al. (NeurIPS 2018), Algorithm 2."""
    return descend(scale_by_yogi(gradients, **hyperparameters), start, learning_rate)
