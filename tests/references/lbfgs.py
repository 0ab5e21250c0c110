"""L-BFGS with the matrix that it never forms."""

import numpy as np

from references.common import loss_around, optimizer, piece, rate
from references.linesearch import Wolfe, search

MOVED = {"memory_size": [2, 1], "scale_init_precond": [False]}


class InverseHessian:
    """Liu and Nocedal (1989), eq. 2.1 and Algorithm 2.1, with all matrices written out."""

    def __init__(self, memory_size, scale_init_precond):
        self.memory_size, self.scaled = memory_size, scale_init_precond
        self.last, self.pairs = None, []

    def direction(self, x, g):
        x, g = np.ravel(x), np.ravel(g)
        if self.last is not None:
            s, y = x - self.last[0], g - self.last[1]
            curved = s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y)
            self.pairs = [*self.pairs, (s, y) if curved else None][-self.memory_size :]
        self.last = x, g
        pairs = [pair for pair in self.pairs if pair is not None]
        gamma, one = 1.0, np.eye(len(x))
        if self.scaled and pairs:
            s, y = pairs[-1]
            gamma = (s @ y) / (y @ y)
        elif self.scaled:
            gamma = min(1.0, 1 / np.linalg.norm(g))
        h = gamma * one
        for s, y in pairs:
            v = one - np.outer(y, s) / (y @ s)
            h = v.T @ h @ v + np.outer(s, s) / (y @ s)
        return h @ g


@piece(coupled=True, moved=MOVED)
def scale_by_lbfgs(gradients, start, memory_size=10, scale_init_precond=True):
    """Liu and Nocedal (1989)."""
    h, x, out = InverseHessian(memory_size, scale_init_precond), start, []
    for g in gradients:
        out.append(h.direction(x, g))
        x = x + out[-1]
    return out


# s and y are differences of near numbers: where a step is a hundredth of the parameters, s has an
# error of 100 ulps, and so has what comes of it.
ULPS = 400


# The first direction is 2 / 2. Then s = -0.1 and y = 2 have no positive curvature: 4 / 4. Then
# s = -0.2, y = -6: H = s / y = 1/30.
@optimizer(
    {"linesearch": None},
    (-0.1, -0.2, 0.3 * 2 / 30),
    coupled=True,
    moved={**MOVED, "linesearch": [None]},
    ulps=ULPS,
)
def lbfgs(
    gradients,
    start,
    learning_rate=None,
    memory_size=10,
    scale_init_precond=True,
    linesearch="zoom",
):
    """Liu and Nocedal (1989), Algorithm 2.1, each step from a search that begins with rate 1."""
    h, x, steps = InverseHessian(memory_size, scale_init_precond), start, []
    for t, g in enumerate(gradients):
        factor = 1.0 if learning_rate is None else rate(learning_rate, t)
        u = -factor * np.reshape(h.direction(x, g), np.shape(g))
        if linesearch is not None:
            wolfe = Wolfe(loss_around(x, g), x, u, 1e-4, 0.9, 0.0, 1e-6)
            u = search(wolfe, 1.0, 20, np.inf, 2.0, 1e-5) * u
        steps.append(u)
        x = x + u
    return steps
