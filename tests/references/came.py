"""CAME."""

from math import sqrt

import numpy as np

from references.adafactor import rms, scale_by_factored_rms
from references.common import DECAYS, descend, optimizer, squared


# A number is not factored. u = 2 / sqrt(2) and 4 / 3 are clipped to 1, -2 / sqrt(6.5) is not.
@optimizer(
    {**DECAYS, "eps": 0.0},
    (-0.05, -0.15, -0.3 * (0.375 - 1 / sqrt(6.5))),
    moved={
        "b3": [0.5],
        "eps_instability": [0.1],
        "clipping_threshold": [0.3, np.inf],
        "min_dim_size_to_factor": [3],
    },
    shape=(4, 2),
    cancels=True,
)
def came(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    eps=1e-30,
    eps_instability=1e-16,
    clipping_threshold=1.0,
    min_dim_size_to_factor=1,
    weight_decay=0.0,
    mask=None,
):
    """arXiv:2307.02047, Algorithm 2, on the last two axes."""
    scaled = scale_by_factored_rms(
        gradients, True, b2, 0, min_dim_size_to_factor, eps, lambda t, decay: decay
    )
    factored = np.ndim(start) > 1 and min(np.shape(start)) >= min_dim_size_to_factor
    m = r = c = 0.0
    out = []
    for u in scaled:
        u = u / max(1, rms(u) / clipping_threshold)
        m = b1 * m + (1 - b1) * u
        instability = squared(u - m) + eps_instability
        s = 1.0
        if factored:
            r = b3 * r + (1 - b3) * np.mean(instability, axis=0, keepdims=True)
            c = b3 * c + (1 - b3) * np.mean(instability, axis=1, keepdims=True)
            s = r * c / np.mean(r)
        out.append(m / np.sqrt(s))
    return descend(out, start, learning_rate, weight_decay)
