"""D-Adaptation and Prodigy."""

from math import sqrt

import numpy as np

from references.common import decays_of, optimizer, rate

BETAS = {
    "betas": [(0.5, 0.9), (0.9, 0.25)],
    "eps": [0.5],
    "estim_lr0": [0.1, 1.0],
}


def correction(betas, t):
    """Adam's two bias corrections in one factor of the rate, as the authors' programs have it."""
    b1, b2 = betas
    return np.sqrt(1 - b2**t) / (1 - b1**t)


# With decays of 1/2 and 1/4, whose root is 1/2, the corrections are sqrt(3), sqrt(15)/3 and
# sqrt(63)/7; v = 3, 51/4, 99/16. At first s = m = w = sqrt(3), and d = 1. Then w = sqrt(15)/3,
# r = w/2 * 4 * s / sqrt(3) = 2w, s = m = sqrt(3)/2 + 2w, and d = 2r / s; then w = d * sqrt(63)/7.
W = sqrt(15) / 3
M = sqrt(3) / 2 + 2 * W
D = 4 * W / M


@optimizer(
    {"learning_rate": 1.0, "betas": (0.5, 0.25), "eps": 0.0, "estim_lr0": 1.0},
    (-1.0, -M / sqrt(51 / 4), -(M / 2 - D * sqrt(63) / 7) / sqrt(99 / 16)),
    coupled=True,
    moved=BETAS,
)
def dadapt_adamw(
    gradients,
    start,
    learning_rate=1.0,
    betas=(0.9, 0.999),
    eps=1e-8,
    estim_lr0=1e-6,
    weight_decay=0.0,
):
    """Defazio and Mishchenko, arXiv:2301.07733, "Adam with D-Adaptation"; the product with `s` has
    the weights from before the gradient, as in the sum `<g_k, s_k>` of their AdaGrad bound that it
    averages, and decay is decoupled."""
    b1, b2 = betas
    slow = np.sqrt(b2)
    x, d, steps = start, estim_lr0, []
    m = v = s = np.zeros_like(start)
    r = 0.0
    for t, g in enumerate(gradients):
        w = d * rate(learning_rate, t) * correction(betas, t + 1)
        weighted = np.divide(s, np.sqrt(v) + eps, out=np.zeros_like(s), where=s != 0)
        r = slow * r + (1 - slow) * w * np.sum(g * weighted)
        s = slow * s + (1 - slow) * w * g
        m = b1 * m + (1 - b1) * w * g
        v = b2 * v + (1 - b2) * g**2
        steps.append(-m / (np.sqrt(v) + eps) - weight_decay * w * x)
        x = x + steps[-1]
        d = max(d, r / ((1 - slow) * np.sum(np.abs(s))))
    return steps


# The same corrections. At first m = 1, v = 3, and nothing has moved; then m = 5/2, v = 51/4, w = W,
# r = 4w and s = sqrt(3) + 4w, so that d = 2r / s; then m = 5/4 - d and v = 51/16 + 3 d^2.
DOUBLED = 8 * W / (sqrt(3) + 4 * W)


@optimizer(
    {
        "learning_rate": 1.0,
        "betas": (0.5, 0.25),
        "eps": 0.0,
        "estim_lr0": 1.0,
        "estim_lr_coef": 2.0,
    },
    (
        -1.0,
        -W * 2.5 / sqrt(51 / 4),
        -DOUBLED * sqrt(63) / 7 * (1.25 - DOUBLED) / sqrt(51 / 16 + 3 * DOUBLED**2),
    ),
    coupled=True,
    moved={
        **BETAS,
        "beta3": [0.5],
        "estim_lr_coef": [0.5, 2.0],
        "safeguard_warmup": [{"safeguard_warmup": True, "learning_rate": 0.5}],
    },
    # The way from the start is a difference of numbers that are a hundred times larger.
    ulps=200,
)
def prodigy(
    gradients,
    start,
    learning_rate=1.0,
    betas=(0.9, 0.999),
    beta3=None,
    eps=1e-8,
    estim_lr0=1e-6,
    estim_lr_coef=1.0,
    weight_decay=0.0,
    safeguard_warmup=False,
    weight_decay_mask=None,
):
    """Mishchenko and Defazio, arXiv:2306.06101, "Prodigy (Adam version)"; in the authors' program,
    and here, `eps` is in units of the new estimate, and `r` and `s` in those of the first."""
    b1, b2 = betas
    b3 = np.sqrt(b2) if beta3 is None else beta3
    decays = decays_of(start, weight_decay, weight_decay_mask)
    x, d, r, steps = start, estim_lr0, 0.0, []
    m = v = s = np.zeros_like(start)
    for t, g in enumerate(gradients):
        w = d * rate(learning_rate, t) * correction(betas, t + 1)
        r = b3 * r + d / estim_lr0 * w * np.sum(g * (start - x))
        s = b3 * s + d / estim_lr0 * (d if safeguard_warmup else w) * g
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * d**2 * g**2
        d = max(d, estim_lr_coef * r / np.sum(np.abs(s)))
        steps.append(-w * (m / (np.sqrt(v) + d * eps) + decays * x))
        x = x + steps[-1]
    return steps
