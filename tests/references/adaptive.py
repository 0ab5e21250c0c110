"""AdaGrad, RMSProp and AdaDelta."""

from math import sqrt

import numpy as np

from references.common import descend, optimizer, piece, rate, squared
from references.descent import trace


@piece()
def scale_by_rss(gradients, initial_accumulator_value=0.1, eps=1e-7, eps_in_sqrt=True):
    """Duchi et al. (JMLR 2011), Figure 1, with the diagonal of G_t."""
    total, out = initial_accumulator_value, []
    for g in gradients:
        total = total + squared(g)
        out.append(g / (np.sqrt(total + eps) if eps_in_sqrt else np.sqrt(total) + eps))
    return out


@piece()
def scale_by_rms(
    gradients,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    bias_correction=False,
    centered=False,
):
    """Tieleman and Hinton (2012), lecture 6.5; centered: Graves, arXiv:1308.0850, eq. 38-40."""
    m, n, out = 0.0, initial_scale, []
    for t, g in enumerate(gradients, start=1):
        m = decay * m + (1 - decay) * g
        n = decay * n + (1 - decay) * squared(g)
        weight = 1 - decay**t if bias_correction else 1.0
        spread = n / weight - (squared(m / weight) if centered else 0.0)
        spread = np.maximum(spread, 0.0)  # a variance, but for rounding
        out.append(g / (np.sqrt(spread + eps) if eps_in_sqrt else np.sqrt(spread) + eps))
    return out


# The variance is exactly 0 at the first step, where rounding is all there is of it.
@piece(moved={"bias_correction": [{"bias_correction": True, "eps": 100.0}]})
def scale_by_stddev(gradients, **hyperparameters):
    """Graves, arXiv:1308.0850, eq. 38-40."""
    return scale_by_rms(gradients, **hyperparameters, centered=True)


@piece()
def scale_by_adadelta(gradients, rho=0.9, eps=1e-6):
    """Zeiler, arXiv:1212.5701, Algorithm 1."""
    return [-step for step in adadelta(gradients, 0.0, 1.0, rho, eps)]


# sums from 1: 5, 21, 25
@optimizer(
    {"initial_accumulator_value": 1.0, "eps": 0.0},
    (-0.1 * 2 / sqrt(5), -0.2 * 4 / sqrt(21), 0.3 * 2 / 5),
)
def adagrad(gradients, start, learning_rate, **hyperparameters):
    """Duchi et al. (JMLR 2011)."""
    return descend(scale_by_rss(gradients, **hyperparameters), start, learning_rate)


# v + 1: 3, 10, 15/2
@optimizer(
    {"decay": 0.5, "eps": 1.0},
    (-0.1 * 2 / sqrt(3), -0.2 * 4 / sqrt(10), 0.3 * 2 / sqrt(7.5)),
    moved={"nesterov": [{"nesterov": True, "momentum": 0.7}]},
)
def rmsprop(
    gradients,
    start,
    learning_rate,
    momentum=None,
    nesterov=False,
    centered=False,
    **hyperparameters,
):
    """Tieleman and Hinton (2012); Graves, arXiv:1308.0850, for the momentum, inside of which the
    rate stands."""
    directions = scale_by_rms(gradients, centered=centered, **hyperparameters)
    steps = descend(directions, start, learning_rate)
    return steps if momentum is None else trace(steps, momentum, nesterov)


# u1 = sqrt(0 + 1) / sqrt(2 + 1) * 2, whose square 4/3 makes e_x = 2/3;
# u2 = sqrt(2/3 + 1) / sqrt(9 + 1) * 4 = 4 / sqrt(6), whose square 8/3 makes e_x = 5/3;
# u3 = sqrt(5/3 + 1) / sqrt(13/2 + 1) * -2 = -2 sqrt(16/45)
@optimizer({"rho": 0.5, "eps": 1.0}, (-0.1 * 2 / sqrt(3), -0.2 * 4 / sqrt(6), 0.3 * 8 / sqrt(45)))
def adadelta(gradients, start, learning_rate=None, rho=0.9, eps=1e-6, weight_decay=0.0):
    """Zeiler, arXiv:1212.5701, Algorithm 1; the decay is L2 regularization."""
    x, e_g, e_x, steps = start, 0.0, 0.0, []
    for t, g in enumerate(gradients):
        g = g + weight_decay * x
        e_g = rho * e_g + (1 - rho) * squared(g)
        u = np.sqrt(e_x + eps) / np.sqrt(e_g + eps) * g
        e_x = rho * e_x + (1 - rho) * squared(u)
        steps.append(-(1.0 if learning_rate is None else rate(learning_rate, t)) * u)
        x = x + steps[-1]
    return steps
