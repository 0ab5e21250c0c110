"""MoMo and MoMo-Adam."""

from math import sqrt

import numpy as np

from references.common import loss_around, optimizer, rate

BOUNDS = {
    "learning_rate": [0.02, 1e4, lambda count: 0.03 + 0.02 * (count % 3)],
    "lower_bound": [0.5, {"lower_bound": 1e4, "adapt_lower_bound": True}],
    "adapt_lower_bound": [True, {"adapt_lower_bound": True, "lower_bound": -10.0}],
    "weight_decay": [0.3, {"weight_decay": 0.3, "adapt_lower_bound": True}],
}


def step_of(x, loss, offset, d, q, weight, alpha, decay, bound, least, adapts):
    """Theorem: the minimizer of `max(model, bound) + distance^2 / (2 alpha) + decay / 2 norm^2`,
    and section 4: the bound that follows."""
    c = 1 + alpha * decay
    height = c * (loss - offset) + d @ x
    if adapts and height < c * weight * bound:
        bound = max(height / (2 * c * weight), least)
    tau = min(alpha / weight, max(height - c * weight * bound, 0.0) / (d @ q))
    if adapts:
        bound = max((loss + d @ x - offset - tau / 2 * (d @ q)) / weight, least)
    return (x - tau * q) / c - x, bound


# The tests' loss is 1 + x^2. Averages by hand of f, <g, x>, g at 1, 0.8 and 0.26:
# 2, 2, 2: tau = min(0.1, 2 / 4); 1.82, 2.6, 3: min(0.2, 1.62 / 9);
# 1.4438, 1.04, 0.5: min(0.3, 0.5338 / 0.25)
@optimizer(
    {"beta": 0.5},
    (-0.2, -0.54, -0.15),
    coupled=True,
    moved={"beta": [0.5, 0.0], **BOUNDS},
    # The model's height is a small difference of large products.
    ulps=100,
)
def momo(
    gradients,
    start,
    learning_rate=1.0,
    beta=0.9,
    lower_bound=0.0,
    weight_decay=0.0,
    adapt_lower_bound=False,
):
    """Schaipp et al., arXiv:2305.07583, Algorithm 1, and section 4 for the bound."""
    x, bound, steps = np.ravel(start), lower_bound, []
    f = offset = 0.0
    d = np.zeros_like(x)
    for t, g in enumerate(gradients):
        value, g = loss_around(x, g)(x)[0], np.ravel(g)
        b = beta if t > 0 else 0.0
        f = b * f + (1 - b) * value
        offset = b * offset + (1 - b) * (g @ x)
        d = b * d + (1 - b) * g
        step, bound = step_of(
            x,
            f,
            offset,
            d,
            d,
            1.0,
            rate(learning_rate, t),
            weight_decay,
            bound,
            lower_bound,
            adapt_lower_bound,
        )
        steps.append(np.reshape(step, np.shape(start)))
        x = x + step
    return steps


# At 1: f = <g, x> = d = 1, q = 1/2; the height 1 is reached at tau = 2 < 3 / 0.5.
# At 0: f = 1, <g, x> = 1/2, d = 5/2: the height 1/2 is reached after 1/5 < 3 / 0.75 * q.
# At -1/5: f = 1.02, <g, x> = 0.45, d = 1/4: 0.52 is farther than 3 / 0.875 * q.
@optimizer(
    {"learning_rate": 3.0, "b1": 0.5, "b2": 0.5, "eps": 0.0},
    (-1.0, -0.2, -3 / 0.875 * 0.25 / sqrt(52 / 7)),
    coupled=True,
    moved={"b1": [0.5, 0.0], "b2": [0.5], "eps": [0.5], **BOUNDS},
    ulps=100,  # as above
)
def momo_adam(
    gradients,
    start,
    learning_rate=0.01,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    lower_bound=0.0,
    weight_decay=0.0,
    adapt_lower_bound=False,
):
    """Schaipp et al., arXiv:2305.07583, Algorithm 2 (MoMo-Adam), and section 4 for the bound."""
    x, bound, steps = np.ravel(start), lower_bound, []
    f = offset = 0.0
    d = v = np.zeros_like(x)
    for t, g in enumerate(gradients):
        value, g = loss_around(x, g)(x)[0], np.ravel(g)
        f = b1 * f + (1 - b1) * value
        offset = b1 * offset + (1 - b1) * (g @ x)
        d = b1 * d + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        q = d / (np.sqrt(v / (1 - b2 ** (t + 1))) + eps)
        step, bound = step_of(
            x,
            f,
            offset,
            d,
            q,
            1 - b1 ** (t + 1),
            rate(learning_rate, t),
            weight_decay,
            bound,
            lower_bound,
            adapt_lower_bound,
        )
        steps.append(np.reshape(step, np.shape(start)))
        x = x + step
    return steps
