"""SM3."""

from math import sqrt

import numpy as np

from references.common import descend, optimizer, piece, squared


@piece(moved={"b2": [0.9, 0.5]})
def scale_by_sm3(gradients, b1=0.9, b2=1.0, eps=1e-8):
    """Anil et al., arXiv:1901.11150, Algorithm SM3-II with momentum. The sets of the cover are all
    that share an index: rows and columns; for a scalar the one set that there is."""
    shape = np.shape(gradients[0])
    sets = [tuple(j for j in range(len(shape)) if j != i) for i in range(len(shape))] or [()]
    bounds, m, out = [0.0] * len(sets), 0.0, []
    for g in gradients:
        least = np.minimum.reduce(np.broadcast_arrays(*bounds, np.full(shape, np.inf)))
        v = b2 * least + (1.0 if b2 == 1 else 1 - b2) * squared(g)
        bounds = [np.max(v, axis=others, keepdims=True, initial=0.0) for others in sets]
        m = b1 * m + (1 - b1) * g / np.sqrt(v + eps)
        out.append(m)
    return out


# sums of squares 4, 20, 24, and the eps of 1e-8; the average of g / sqrt(v) with a decay of 1/2
U = (2 / sqrt(4 + 1e-8), 4 / sqrt(20 + 1e-8), -2 / sqrt(24 + 1e-8))


@optimizer(
    {"momentum": 0.5},
    (
        -0.1 * U[0] / 2,
        -0.2 * (U[0] / 4 + U[1] / 2),
        -0.3 * (U[0] / 8 + U[1] / 4 + U[2] / 2),
    ),
    moved={"momentum": [0.5, 0.0]},
)
def sm3(gradients, start, learning_rate, momentum=0.9):
    """Anil et al., arXiv:1901.11150, Algorithm SM3-II."""
    return descend(scale_by_sm3(gradients, b1=momentum), start, learning_rate)
