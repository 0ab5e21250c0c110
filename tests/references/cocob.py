"""COCOB."""

import numpy as np

from references.common import optimizer, piece, rate

MOVED = {"alpha": [100.0, 1.0], "eps": [0.0, 50.0]}


@piece(moved=MOVED, cancels=True)
def scale_by_cocob(gradients, start, alpha=100.0, eps=1e-8, weight=lambda t, g, x: g):
    """Orabona and Tommasi, arXiv:1705.07795, Algorithm 2, on what comes in as negative gradients;
    `eps` is the first `L`."""
    w, largest, total, gathered, reward, steps = start, eps, 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients):
        c = weight(t, g, w)
        largest = np.maximum(largest, np.abs(c))
        total = total + np.abs(c)
        reward = np.maximum(reward + (np.conj(w - start) * c).real, 0.0)
        gathered = gathered + c
        divisor = largest * np.maximum(total + largest, alpha * largest)
        new = start + gathered / divisor * (largest + reward)
        steps.append(new - w)
        w = new
    return steps


# c = -0.2, -0.8, 0.6; L = 0.2, 0.8, 0.8; alpha L = 0.8, 3.2, 3.2 is more than G + L throughout;
# R = 0, 0.25 * 0.8, 0.2 - 0.390625 * 0.6 < 0; the bets are -0.25, -0.390625 and -0.125.
@optimizer(
    {"alpha": 4.0, "eps": 0.0},
    (-0.25, -0.140625, 0.265625),
    moved=MOVED,
    cancels=True,
    # Bets of a hundredth are added to parameters of ten.
    ulps=1000,
)
def cocob(gradients, start, learning_rate=1.0, alpha=100.0, eps=1e-8, weight_decay=0.0):
    """Orabona and Tommasi, arXiv:1705.07795, Algorithm 2, on weighted gradients of a loss with a
    penalty."""

    def weight(t, g, x):
        return -rate(learning_rate, t) * (g + weight_decay * x)

    return scale_by_cocob(gradients, start, alpha, eps, weight)
