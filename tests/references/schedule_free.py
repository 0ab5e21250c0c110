"""Schedule-free methods, with the three sequences of the paper written out."""

from math import sqrt

import numpy as np

from references.common import optimizer, rate, squared

# The start is 1; the rates are tenths, and the weights of the average 1, 4/5 and 9/14.


def average(direction, gradients, start, learning_rate, b1, power, warmup_steps):
    """Defazio et al., arXiv:2405.15682, eq. 3 to 5, with the weights of their Algorithm 1.

    `direction(g, y, t)` is what `z` goes down along.
    """
    x = y = z = start
    largest, weights, steps = 0.0, 0.0, []
    for t, g in enumerate(gradients):
        gamma = rate(learning_rate, t) * min(1.0, (t + 1) / (warmup_steps or 1))
        largest = max(largest, gamma)
        weights = weights + largest**power
        c = largest**power / weights if weights else 0.0
        z = z - gamma * direction(g, y, t + 1)
        x = (1 - c) * x + c * z
        new = (1 - b1) * z + b1 * x
        steps.append(new - y)
        y = new
    return steps


def halfway(*z):
    """The steps of `y` from the start 1, for three points `z` and `b1 = 1/2`."""
    x1 = z[0]
    x2 = x1 / 5 + z[1] * 4 / 5
    x3 = x2 * 5 / 14 + z[2] * 9 / 14
    y = (z[0] + x1) / 2, (z[1] + x2) / 2, (z[2] + x3) / 2
    return y[0] - 1, y[1] - y[0], y[2] - y[1]


MOVED = {
    "warmup_steps": [4, {"warmup_steps": 3, "learning_rate": lambda count: 0.1 / (count + 1)}],
    "weight_lr_power": [0.0, 1.0],
    "state_dtype": [None],  # the dtypes that there are have tests of their own
}
# `z - y` is a difference of near numbers: an error of their last place is one of as many ulps as
# they are larger than a step.
ULPS = 100


@optimizer({"b1": 0.5}, halfway(0.8, 0.0, 0.6), moved=MOVED, cancels=True, ulps=ULPS)
def schedule_free_sgd(
    gradients,
    start,
    learning_rate,
    warmup_steps=None,
    b1=0.9,
    weight_decay=None,
    weight_lr_power=2.0,
    state_dtype=None,
):
    """Defazio et al., arXiv:2405.15682, eq. 3 to 5, and decay added to the gradient."""

    def direction(g, y, t):
        return g + (weight_decay or 0.0) * y

    return average(direction, gradients, start, learning_rate, b1, weight_lr_power, warmup_steps)


# The corrected averages of squares are 4, 12 and 52/7.
Z = 0.9 - 0.8 / sqrt(12)


@optimizer(
    {"b1": 0.5, "b2": 0.5, "eps": 0.0},
    halfway(0.9, Z, Z + 0.6 / sqrt(52 / 7)),
    moved=MOVED,
    cancels=True,
    ulps=ULPS,
)
def schedule_free_adamw(
    gradients,
    start,
    learning_rate,
    warmup_steps=None,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    weight_lr_power=2.0,
    state_dtype=None,
):
    """Defazio et al., arXiv:2405.15682, Algorithm 1; the correction of `v` is under the root, as in
    Adam, and not in the rate."""
    v = 0.0

    def direction(g, y, t):
        nonlocal v
        v = b2 * v + (1 - b2) * squared(g)
        root = np.sqrt(v / (1 - b2**t))
        return np.divide(g, root + eps) + weight_decay * y

    return average(direction, gradients, start, learning_rate, b1, weight_lr_power, warmup_steps)
