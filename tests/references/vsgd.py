"""VSGD."""

from math import sqrt

import numpy as np

from references.common import descend, optimizer, squared

# Of equal prior variances, the first gradient counts as a half: mu = 1.
V1 = 0.5 / 1.0001
DRIFT1 = NOISE1 = 1 + V1 + 1
# With tau = 0, the estimates are those of one step, and still equal at the second.
V2 = DRIFT1 / 2.0001 / 2
DRIFT2 = NOISE2 = 1 + V2 + 2.25
V3 = DRIFT2 / 2.0001 / 2


@optimizer(
    {"noise_ratio": 1.0, "strength": 0.5, "tau1": 0.0, "tau2": 0.0, "eps": 0.0},
    (
        -0.1 / sqrt(1 + V1),
        -0.2 * 2.5 / sqrt(6.25 + V2),
        -0.3 * 0.25 / sqrt(0.0625 + V3),
    ),
    moved={
        "noise_ratio": [3.0],
        "strength": [0.1],
        "tau1": [0.5],
        "tau2": [0.5],
    },
    cancels=True,
)
def vsgd(
    gradients,
    start,
    learning_rate,
    noise_ratio=30.0,
    strength=1e-8,
    tau1=0.81,
    tau2=0.9,
    eps=1e-8,
    weight_decay=0.0,
    mask=None,
):
    """arXiv:2404.06549, Algorithm 1, with the priors of the authors' program."""
    a, b_g, b_hat = 2 * strength + 1 + 1e-4, 2 * strength, 2 * noise_ratio * strength
    mu, drift, noise, out = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        s_g = b_g / (2 * strength + 1e-4) if t == 1 else drift / a
        s_hat = b_hat / (2 * strength + 1e-4) if t == 1 else noise / a
        last, mu = mu, (s_hat * mu + s_g * g) / (s_g + s_hat)
        var = s_g * s_hat / (s_g + s_hat)
        drift = (1 - t**-tau1) * drift + t**-tau1 * (b_g + var + squared(mu - last))
        noise = (1 - t**-tau2) * noise + t**-tau2 * (b_hat + var + squared(g - mu))
        out.append(mu / (np.sqrt(squared(mu) + var) + eps))
    return descend(out, start, learning_rate, weight_decay)
