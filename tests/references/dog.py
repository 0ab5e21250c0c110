"""DoG and DoWG."""

from math import sqrt

import numpy as np

from references.common import decays_of, optimizer, rate


def decayed(g, x, weight_decay, mask):
    """The gradient of the loss with a penalty `weight_decay / 2 * norm(x)^2`."""
    return g + decays_of(x, weight_decay or 0.0, mask) * x


# r = 1/2, then the distances 1/2 and 1/2 + 2/sqrt(20); G = 4, 20, 24
@optimizer(
    {"learning_rate": 1.0, "init_step": ("distance", 0.5), "eps": 0.0},
    (-0.5 / 2 * 2, -0.5 / sqrt(20) * 4, (0.5 + 2 / sqrt(20)) / sqrt(24) * 2),
    coupled=True,
    moved={
        "init_step": [("heuristic", 0.1), ("learning_rate", 0.05)],
        "eps": [0.5],
    },
    # A distance of 0.1 is a difference of numbers that are a hundred times larger.
    ulps=200,
)
def dog(
    gradients,
    start,
    learning_rate=1.0,
    init_step=("heuristic", 1e-6),
    eps=1e-8,
    weight_decay=None,
    mask=None,
):
    """Ivgi et al., arXiv:2302.12022, Algorithm 1, with their eq. 4 for the first distance; one can
    set the first rate instead, which the paper leaves open."""
    kind, value = init_step
    farthest = {
        "heuristic": value * (1 + np.sqrt(np.sum(np.square(start)))),
        "distance": value,
        "learning_rate": 0.0,
    }[kind]
    x, squares, steps = start, 0.0, []
    for t, g in enumerate(gradients):
        g = decayed(g, x, weight_decay, mask)
        farthest = max(farthest, np.sqrt(np.sum((x - start) ** 2)))
        squares = squares + np.sum(g * g)
        eta = value if kind == "learning_rate" and t == 0 else farthest / np.sqrt(squares + eps)
        steps.append(-rate(learning_rate, t) * eta * g)
        x = x + steps[-1]
    return steps


DISTANCE = 0.5 + 1 / sqrt(5)


# R = 1/4, 1/4, DISTANCE^2; V = 1, 5, 5 + 4 R
@optimizer(
    {"learning_rate": 1.0, "init_estim_sq_dist": 0.25, "eps": 0.0},
    (-0.5, -1 / sqrt(5), 2 * DISTANCE**2 / sqrt(5 + 4 * DISTANCE**2)),
    coupled=True,
    moved={
        "init_estim_sq_dist": [0.5, {"init_estim_sq_dist": None, "eps": 0.01}],
        "eps": [0.5],
    },
    ulps=400,  # twice as many in a squared distance
)
def dowg(
    gradients,
    start,
    learning_rate=1.0,
    init_estim_sq_dist=None,
    eps=1e-4,
    weight_decay=None,
    mask=None,
):
    """Khaled et al., arXiv:2305.16284, Algorithm 1; `eps` keeps the root from 0, and is the first
    squared distance where none is given."""
    square = eps if init_estim_sq_dist is None else init_estim_sq_dist
    x, weighted, steps = start, 0.0, []
    for t, g in enumerate(gradients):
        g = decayed(g, x, weight_decay, mask)
        square = max(square, np.sum((x - start) ** 2))
        weighted = weighted + square * np.sum(g * g)
        steps.append(-rate(learning_rate, t) * square / (np.sqrt(weighted) + eps) * g)
        x = x + steps[-1]
    return steps
