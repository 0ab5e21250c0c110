"""Sophia. Estimates of curvatures are tested in tests/optimizers/test_sophia.py."""

import numpy as np

from gradtx import hutchinson_estimator_diag_hessian
from references.common import descend, optimizer


class AnotherSeed:
    """The same estimator, with other random signs."""

    init, update = hutchinson_estimator_diag_hessian(7)


MOVED = {
    "eps": [0.05],
    "gamma": [0.01, 20.0],
    "clip_threshold": [0.3, None],
    "update_interval": [1, 3],
    "hessian_diagonal_fn": [AnotherSeed],
    "mu_dtype": [None],
    "verbose": [{"verbose": True, "print_win_rate_every_n_steps": 10}],
    "print_win_rate_every_n_steps": [5],  # says nothing alone
}


# The averages of gradients are 1, 5/2 and 1/4. The loss of the tests has the curvature 1 at every
# step, and that of the first is averaged, to 1/2, and of the third, to 3/4.
@optimizer(
    {
        "b1": 0.5,
        "b2": 0.5,
        "gamma": 1.0,
        "weight_decay": 0.0,
        "clip_threshold": 3.0,
        "update_interval": 2,
    },
    (-0.1 * 2, -0.2 * 3, -0.3 / 3),
    moved=MOVED,
)
def sophia(
    gradients,
    start,
    learning_rate,
    b1=0.965,
    b2=0.99,
    eps=1e-8,
    weight_decay=1e-4,
    gamma=0.01,
    clip_threshold=1.0,
    update_interval=10,
    hessian_diagonal_fn=None,
    verbose=False,
    print_win_rate_every_n_steps=0,
):
    """Liu et al., arXiv:2305.14342, Algorithm 3, where the Hessian is the identity: so it is for
    the loss of the tests at the point where its gradient is the one given."""
    m = h = np.zeros_like(start)
    directions = []
    for t, g in enumerate(gradients):
        m = b1 * m + (1 - b1) * g
        if t % update_interval == 0:
            h = b2 * h + (1 - b2) * np.ones_like(start)
        u = m / np.maximum(gamma * h, eps)
        if clip_threshold is not None:
            u = np.clip(u, -clip_threshold, clip_threshold)
        directions.append(u)
    return descend(directions, start, learning_rate, weight_decay)
