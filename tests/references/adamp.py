"""AdamP and SGDP."""

from math import sqrt

import numpy as np

from references.adams import X_ADAMW, scale_by_adam
from references.common import DECAYS, optimizer, rate
from references.descent import trace

# Small numbers of elements need a large threshold.
PROJECTION = {
    "delta": [0.9, 3.0],
    "wd_ratio": [{"wd_ratio": 0.5, "delta": 0.9, "weight_decay": 0.3}],
    "channel_axis": [{"channel_axis": 0, "delta": 0.9}, {"channel_axis": 0, "delta": 0.5}],
}


def inner(x, y, axes):
    return np.sum((np.conj(x) * y).real, axis=axes, keepdims=True)


def projected(directions, gradients, start, learning_rate, decay, delta, ratio, eps, channel):
    """arXiv:2006.08217, Algorithms 1 and 2."""
    x, steps = start, []
    for t, (u, g) in enumerate(zip(directions, gradients, strict=True)):
        wd = decay
        everywhere = tuple(range(np.ndim(x)))
        views = [tuple(i for i in everywhere if i != channel % np.ndim(x)), everywhere]
        for axes in views if np.ndim(x) > 1 else []:
            p = x / (np.sqrt(inner(x, x, axes)) + eps)
            cosine = inner(p, g, axes) / (np.sqrt(inner(g, g, axes)) + eps)
            n = np.prod([np.shape(x)[i] for i in axes])
            if np.max(np.abs(cosine)) < delta / np.sqrt(n):
                u = u - inner(p, u, axes) * p
                wd = decay * ratio
                break
        steps.append(-rate(learning_rate, t) * (u + wd * x))
        x = x + steps[-1]
    return steps


# A number is not projected.
@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (
        -0.1 * 1.5,
        -0.2 * (5 / sqrt(27) + 0.5 * 0.85),
        -0.3 * (2 / 7 / sqrt(52 / 7) + 0.5 * X_ADAMW),
    ),
    moved=PROJECTION,
    shape=(3, 2),
    cancels=True,
)
def adamp(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    delta=0.1,
    wd_ratio=0.1,
    channel_axis=-1,
):
    """arXiv:2006.08217, Algorithm 2."""
    directions = scale_by_adam(gradients, b1, b2, eps)
    return projected(
        directions,
        gradients,
        start,
        learning_rate,
        weight_decay,
        delta,
        wd_ratio,
        eps,
        channel_axis,
    )


# the velocities are 2, 5 and 1/2, and half of x decays: 1, 0.75, -0.325
@optimizer(
    {"momentum": 0.5, "weight_decay": 0.25},
    (-0.1 * 2.5, -0.2 * 5.375, -0.3 * (0.5 - 0.1625)),
    moved={**PROJECTION, "momentum": [0.5, 0.0]},
    shape=(3, 2),
    cancels=True,
)
def sgdp(
    gradients,
    start,
    learning_rate,
    momentum=0.9,
    nesterov=False,
    weight_decay=0.0,
    delta=0.1,
    wd_ratio=0.1,
    eps=1e-8,
    channel_axis=-1,
):
    """arXiv:2006.08217, Algorithm 1; the decay as in the authors' program."""
    return projected(
        trace(gradients, momentum, nesterov),
        gradients,
        start,
        learning_rate,
        weight_decay / (1 - momentum),
        delta,
        wd_ratio,
        eps,
        channel_axis,
    )
