"""Optimistic gradient descent and optimistic Adam."""

from math import sqrt

from references.adams import scale_by_adam
from references.common import DECAYS, descend, optimizer, piece, rate

WEIGHTS = {"alpha": [0.5], "beta": [0.3, 0.0]}


@piece(moved=WEIGHTS, cancels=True)
def scale_by_optimistic_gradient(gradients, alpha=1.0, beta=1.0):
    """Mokhtari et al., arXiv:1901.08511, the generalized method: `(alpha + beta) g - beta g_last`,
    whose two last gradients are one at the first step."""
    lasts = [gradients[0], *gradients[:-1]]
    return [(alpha + beta) * g - beta * last for g, last in zip(gradients, lasts, strict=True)]


# 2 g + 1/2 change: 4, 8 + 1, -4 - 3
@optimizer({"alpha": 2.0, "beta": 0.5}, (-0.1 * 4, -0.2 * 9, 0.3 * 7), moved=WEIGHTS, cancels=True)
def optimistic_gradient_descent(gradients, start, learning_rate, alpha=1.0, beta=1.0):
    """Mokhtari et al., arXiv:1901.08511."""
    directions = scale_by_optimistic_gradient(gradients, alpha, beta)
    return descend(directions, start, learning_rate)


# Adam's directions are 1, A, B
A, B = 5 / sqrt(27), 1 / sqrt(91)


@optimizer(
    {**DECAYS, "eps": 0.0, "nesterov": False, "learning_rate": 0.1, "optimism": 0.05},
    (-0.1, -0.1 * A - 0.05 * (A - 1), -0.1 * B - 0.05 * (B - A)),
    moved={"learning_rate": [0.02], "optimism": [0.03]},
    cancels=True,
)
def optimistic_adam(gradients, start, learning_rate, optimism=None, nesterov=True, **more):
    """Daskalakis et al., arXiv:1711.00141, Algorithm 1, with an optimism of its own."""
    directions = scale_by_adam(gradients, nesterov=nesterov, **more)
    steps, last = [], directions[0]
    for t, u in enumerate(directions):
        change = rate(learning_rate, t) if optimism is None else optimism
        steps.append(-rate(learning_rate, t) * u - change * (u - last))
        last = u
    return steps


@optimizer(
    {**DECAYS, "eps": 0.0, "nesterov": False, "alpha": 2.0, "beta": 0.5},
    (-0.1 * 2, -0.2 * (2 * A + 0.5 * (A - 1)), -0.3 * (2 * B + 0.5 * (B - A))),
    moved=WEIGHTS,
    cancels=True,
)
def optimistic_adam_v2(gradients, start, learning_rate, alpha=1.0, beta=1.0, nesterov=True, **more):
    """Daskalakis et al., arXiv:1711.00141, Algorithm 1, which has 2 u - u_last."""
    directions = scale_by_adam(gradients, nesterov=nesterov, **more)
    optimistic = scale_by_optimistic_gradient(directions, alpha, beta)
    return descend(optimistic, start, learning_rate)
