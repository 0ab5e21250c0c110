"""Polyak's step size."""

import numpy as np

from references.common import descend, loss_around, optimizer, piece, rate

MOVED = {
    "f_min": [0.5, 1e4],
    "max_learning_rate": [0.01],
    "eps": [0.5],
    "variant": [{"variant": "sps+", "f_min": 1e4}, {"variant": "sps+"}],
}


@piece(coupled=True, moved=MOVED)
def scale_by_polyak(
    gradients, start, f_min=0.0, max_learning_rate=1.0, eps=0.0, variant="sps", flip=1
):
    """Loizou et al., arXiv:2002.10542, eq. 4 with c = 1; "sps+": arXiv:2307.14528, section 3."""
    x, out = start, []
    for t, g in enumerate(gradients):
        value, _ = loss_around(x, g)(x)
        gap = value - f_min
        if variant == "sps+":
            gap = max(gap, 0.0)
        out.append(min(gap / (np.vdot(g, g) + eps), max_learning_rate) * g)
        x = x + (out[-1] if flip == 1 else flip(t) * out[-1])
    return out


# values 1 + x^2 of the tests' loss: 2; 1 + 0.9^2; 1 + (0.9 - 0.2 * 1.81 / 4)^2; divided by g
@optimizer(
    {},
    (-0.1 * 2 / 2, -0.2 * 1.81 / 4, 0.3 * (1 + 0.8095**2) / 2),
    coupled=True,
    moved={**MOVED, "scaling": [0.5, lambda count: 0.1 * (count + 1)]},
)
def polyak_sgd(gradients, start, max_learning_rate=1.0, scaling=1.0, **hyperparameters):
    """Loizou et al., arXiv:2002.10542, Algorithm 1, and a factor."""

    def flip(t):
        return -rate(scaling, t)

    directions = scale_by_polyak(
        gradients, start, max_learning_rate=max_learning_rate, flip=flip, **hyperparameters
    )
    return descend(directions, start, scaling)
