"""Cautious AdamW and Lion."""

from math import sqrt

import numpy as np

from references.adams import scale_by_adam
from references.common import DECAYS, descend, optimizer
from references.signs import scale_by_lion


def masked(directions, gradients):
    """arXiv:2411.16085, Algorithm 1: where a direction has the sign of the gradient."""
    out = []
    for u, g in zip(directions, gradients, strict=True):
        agrees = (np.conj(u) * g).real > 0
        out.append(u * agrees * np.size(u) / (np.sum(agrees) + 1))
    return out


# One element that agrees is halved. Adam's directions are 1, 10/3 / sqrt(12) and one that disagrees
X = 0.9 - 0.2 * (5 / sqrt(108) + 0.45)


@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (-0.1, -0.2 * (5 / sqrt(108) + 0.45), -0.3 * X / 2),
)
def cautious_adamw(
    gradients, start, learning_rate, b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.0, mask=None
):
    """arXiv:2411.16085, Algorithm 1."""
    directions = masked(scale_by_adam(gradients, b1, b2, eps), gradients)
    return descend(directions, start, learning_rate, weight_decay)


# c = 3/2, 13/4, -7/8 agree
@optimizer({"b1": 0.25, "b2": 0.5}, (-0.05, -0.1, 0.15))
def cautious_lion(gradients, start, learning_rate, b1=0.9, b2=0.99, weight_decay=0.0, mask=None):
    """arXiv:2411.16085, with Lion."""
    directions = masked(scale_by_lion(gradients, b1, b2), gradients)
    return descend(directions, start, learning_rate, weight_decay)
