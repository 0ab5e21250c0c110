"""RACS."""

from math import sqrt

import numpy as np

import gradtx
from references.common import descend, optimizer, piece, squared
from references.soap import ADAM, nowhere, of_rest_or


def scale_by_racs(gradients, beta=0.9, gamma=1.01, iterations=5, weight_dimension_numbers=None):
    """Gong et al., arXiv:2502.07752, Algorithm 1; the fixed point of equation 16."""
    if weight_dimension_numbers is not None:
        turned = scale_by_racs([g.T for g in gradients], beta, gamma, iterations)
        return [u.T for u in turned]
    rows, columns, norm, out = 0.0, 0.0, None, []
    for g in gradients:
        q = np.ones(len(g))
        for _ in range(iterations):
            s = squared(g).T @ q / (q @ q)
            q = squared(g) @ s / (s @ s)
        rows = beta * rows + (1 - beta) * q
        columns = beta * columns + (1 - beta) * s
        u = g / np.sqrt(np.outer(rows, columns))
        size = np.linalg.norm(u)
        eta = 1.0 if norm is None else gamma / max(size / norm, gamma)
        norm = eta * size
        out.append(eta * u)
    return out


OF_MATRICES = {
    "beta": [0.5, 0.0],
    "alpha": [0.5],
    "gamma": [1.5, 100.0],
    "iterations": [1],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
}
ATTRIBUTES = {"moved": OF_MATRICES, "shape": (3, 4), "cancels": True}

scale_by_racs = piece(**ATTRIBUTES)(scale_by_racs)

# Numbers are no matrices and take AdamW's steps, with decays of 0.9 and 0.999: averages are 0.2,
# 0.58 and 0.322 of weights 0.1, 0.19 and 0.271; 0.004, 0.019996 and 0.023976004 of squares.
M_HAT = (0.2 / 0.1, 0.58 / 0.19, 0.322 / 0.271)
V_HAT = (0.004 / 0.001, 0.019996 / 0.001999, 0.023976004 / 0.002997001)


@optimizer(
    {},
    tuple(
        -lr * m / (sqrt(v) + 1e-8) for lr, m, v in zip((0.1, 0.2, 0.3), M_HAT, V_HAT, strict=True)
    ),
    **ATTRIBUTES,
)
def racs(
    gradients,
    start,
    learning_rate,
    beta=0.9,
    alpha=0.05,
    gamma=1.01,
    weight_decay=0.0,
    iterations=5,
    of_rest=None,
    weight_dimension_numbers=None,
):
    """Gong et al., arXiv:2502.07752, with decoupled weight decay."""
    if np.ndim(start) != 2 or weight_dimension_numbers is nowhere:
        settings = (learning_rate, 0.9, 0.999, 1e-8, weight_decay)
        return of_rest_or(of_rest, gradients, start, *settings)
    directions = scale_by_racs(gradients, beta, gamma, iterations, weight_dimension_numbers)
    return descend([alpha * u for u in directions], start, learning_rate, weight_decay)
