"""M-SVAG."""

import numpy as np

from references.common import descend, optimizer, squared


# m^2 = 4, 100/9, 4/49; nu - m^2 = 0, 8/9, 360/49; rho = 1, 5/9, 3/7, and rho/(1-rho) is 5/4 and 3/4
@optimizer(
    {"beta": 0.5},
    (
        -0.1 * 2,
        -0.2 * 10 / 3 * (100 / 9) / (100 / 9 + 10 / 9),
        -0.3 * 2 / 7 * 4 / (4 + 270),
    ),
    moved={"beta": [0.5, 0.0]},
    cancels=True,
)
def msvag(gradients, start, learning_rate, beta=0.9):
    """arXiv:1705.07774, Algorithm 2, and Appendix for the variance of the average."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = beta * m + (1 - beta) * g
        v = beta * v + (1 - beta) * squared(g)
        m_hat, v_hat = m / (1 - beta**t), v / (1 - beta**t)
        if t == 1 or beta == 0:
            out.append(m_hat)
            continue
        rho = (1 - beta) * (1 + beta**t) / ((1 + beta) * (1 - beta**t))
        s = np.maximum(v_hat - squared(m_hat), 0) / (1 - rho)
        out.append(m_hat * squared(m_hat) / (squared(m_hat) + rho * s))
    return descend(out, start, learning_rate)
