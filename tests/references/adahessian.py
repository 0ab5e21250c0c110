"""AdaHessian. Estimates of curvatures are tested in tests/optimizers/test_sophia.py."""

import numpy as np

from references.common import DECAYS, descend, optimizer
from references.sophia import AnotherSeed


# The curvature is 1, and so is its average with bias correction; m_hat is 2, 10/3, 2/7.
@optimizer(
    {**DECAYS, "eps": 1.0, "update_interval": 2},
    (-0.1, -0.2 * 5 / 3, -0.3 / 7),
    moved={
        "hessian_power": [0.5],
        "kernel_axes": [(0, 1)],
        "update_interval": [3],
        "hessian_diagonal_fn": [AnotherSeed],
    },
)
def adahessian(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-4,
    hessian_power=1.0,
    weight_decay=0.0,
    mask=None,
    kernel_axes=(),
    update_interval=1,
    hessian_diagonal_fn=None,
):
    """arXiv:2006.00719, Algorithm 1, where the Hessian is the identity: so it is for the loss of
    the tests at the point where its gradient is the one given."""
    m = v = np.zeros_like(start)
    estimates, directions = 0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        if (t - 1) % update_interval == 0:
            v = b2 * v + (1 - b2) * np.ones_like(start) ** 2
            estimates += 1
        v_hat = v / (1 - b2**estimates)
        directions.append(m / (1 - b1**t) / (np.sqrt(v_hat) ** hessian_power + eps))
    return descend(directions, start, learning_rate, weight_decay)
