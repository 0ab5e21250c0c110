"""Adam for gradients with spikes: StableAdamW, SPAM and Stable-SPAM."""

from math import sqrt

import numpy as np

from references import pieces
from references.adams import scale_by_adam
from references.common import DECAYS, descend, optimizer, rate, squared

# Squares are 1, 4/3 and 7/13 of the mean, so that the second step is divided by sqrt(4/3).
SECOND = 0.2 * (5 / sqrt(27) + 0.5 * 0.85) / sqrt(4 / 3)
THIRD = 0.3 * (2 / sqrt(364) + 0.5 * (0.85 - SECOND))


@optimizer({**DECAYS, "eps": 0.0, "weight_decay": 0.5}, (-0.15, -SECOND, -THIRD))
def stable_adamw(gradients, start, learning_rate, b1=0.9, b2=0.99, eps=1e-6, weight_decay=0.2):
    """arXiv:2304.13013, Algorithm 2, with its decay rates in place of a bias correction."""
    x, v, u, steps = start, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        d1 = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t)
        d2 = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        v = d1 * v + (1 - d1) * g
        u = d2 * u + (1 - d2) * squared(g)
        rms = np.sqrt(np.mean(squared(g) / np.maximum(u, eps**2)))
        eta = rate(learning_rate, t - 1) / max(1.0, rms)
        decay = weight_decay(t - 1) if callable(weight_decay) else weight_decay
        steps.append(-eta * decay * x - eta * v / (np.sqrt(u) + eps))
        x = x + steps[-1]
    return steps


def with_resets(gradients, every, warmup, b1, b2, eps, threshold=None):
    """arXiv:2501.06842: Adam that starts again after `every` steps, clipped if wished."""
    out = []
    for first in range(0, len(gradients), every):
        part, v, clipped = gradients[first : first + every], 0 * squared(gradients[0]), []
        for g in part:
            if threshold is not None:
                spike = (v > 0) & (squared(g) > threshold * v)
                size = np.where(g == 0, 1, np.abs(g))
                g = np.where(spike, g / size * np.sqrt(threshold * v), g)
            v = b2 * v + (1 - b2) * squared(g)
            clipped.append(g)
        for i, u in enumerate(scale_by_adam(clipped, b1, b2, eps), start=1):
            full = first == 0 or not warmup
            out.append(u if full else u * (1 - np.cos(np.pi * min(i / warmup, 1))) / 2)
    return out


# The second gradient is clipped to 2, the third comes after a reset, at half its size.
@optimizer(
    {**DECAYS, "eps": 0.0, "threshold": 2.0, "every": 2, "warmup": 2},
    (-0.1, -0.2, 0.15),
    moved={
        "threshold": [2.0],
        "every": [{"every": 6, "warmup": 4}],
        "warmup": [{"every": 6, "warmup": 0}],
    },
)
def spam(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-6,
    weight_decay=0.0,
    mask=None,
    threshold=5000.0,
    every=500,
    warmup=150,
):
    """arXiv:2501.06842, without sparse momentum."""
    directions = with_resets(gradients, every, warmup, b1, b2, eps, threshold)
    return descend(directions, start, learning_rate, weight_decay)


# Clipped gradients are 2, 10/3, -2; the averages of their norms without bias 2, 26/9, of their
# squares 4, 236/27. So the inputs of Adam are 1, A and, after a reset, one below zero.
A = 26 / 9 / sqrt(236 / 27)


@optimizer(
    {**DECAYS, "eps": 0.0, "gamma1": 0.5, "gamma2": 0.5, "gamma3": 0.5, "every": 2},
    (-0.1, -0.2 * (1 + 2 * A) / 3 / sqrt((1 + 2 * A**2) / 3), 0.3),
    moved={"gamma1": [0.4], "gamma2": [0.8], "gamma3": [0.5], "every": [6]},
    ulps=12,  # the roundings of maxima, norms and their averages come before those of Adam
)
def stable_spam(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    mask=None,
    gamma1=0.7,
    gamma2=0.9,
    gamma3=0.999,
    every=1000,
):
    """arXiv:2502.17055, Algorithm 1."""
    clipped = pieces.adaptive_spike_clip(gradients, gamma3)
    scaled = pieces.adaptive_gradient_norm(clipped, gamma1, gamma2, eps)
    directions = with_resets(scaled, every, 0, b1, b2, eps)
    return descend(directions, start, learning_rate, weight_decay)
