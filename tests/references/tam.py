"""TAM and AdaTAM."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


def velocities(gradients, start, momentum, decay_rate, eps):
    """arXiv:2412.18790, Algorithm 1."""
    m, s, out = np.zeros_like(start), 0.0, []
    for g in gradients:
        sizes = np.sqrt(np.sum(squared(m)) * np.sum(squared(g)))
        cosine = np.sum((np.conj(m) * g).real) / sizes if sizes > 0 else 0.0
        s = decay_rate * s + (1 - decay_rate) * cosine
        m = momentum * m + (eps + (1 + s) / 2) * g
        out.append(m)
    return out


# cosines 0, 1, -1, whose averages are 0, 1/2, -1/4, so that gradients count 1/2, 3/4, 3/8
@optimizer(
    {"momentum": 0.5, "decay_rate": 0.5, "eps": 0.0},
    (-0.1, -0.2 * 3.5, -0.3),
    moved={"decay_rate": [0.5], "momentum": [0.5, 0.0]},
    cancels=True,
)
def tam(gradients, start, learning_rate, momentum=0.9, decay_rate=0.9, eps=1e-8):
    """arXiv:2412.18790, Algorithm 1."""
    out = velocities(gradients, start, momentum, decay_rate, eps)
    return descend(out, start, learning_rate)


# the same velocities, 1, 7/2 and 1
@optimizer(
    {**DECAYS, "decay_rate": 0.5, "eps": 0.0},
    (-0.1 / sqrt(2), -0.7 / 3, -0.3 / sqrt(6.5)),
    moved={"decay_rate": [0.5]},
    cancels=True,
)
def adatam(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    decay_rate=0.9,
    eps=1e-8,
    weight_decay=0.0,
    mask=None,
):
    """arXiv:2412.18790, the adaptive form, as in pytorch_optimizer's program."""
    v, out = 0.0, []
    for g, m in zip(gradients, velocities(gradients, start, b1, decay_rate, eps), strict=True):
        v = b2 * v + (1 - b2) * squared(g)
        out.append(m / (np.sqrt(v) + eps))
    return descend(out, start, learning_rate, weight_decay)
