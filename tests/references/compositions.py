"""AdamW with another piece: Grams, AdamC and GPA."""

from math import sqrt

from references import pieces
from references.adams import X_ADAMW, scale_by_adam
from references.common import DECAYS, descend, optimizer, rate


@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (-0.15, -0.2 * (5 / sqrt(27) + 0.5 * 0.85), -0.3 * (0.5 * X_ADAMW - 2 / sqrt(364))),
)
def grams_adamw(
    gradients, start, learning_rate, b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.0, mask=None
):
    """arXiv:2412.17107, Algorithm 1."""
    directions = pieces.grams(gradients, scale_by_adam(gradients, b1, b2, eps), False)
    return descend(directions, start, learning_rate, weight_decay)


# With a largest rate of 0.4, the coefficients are 1/8, 1/4 and 3/8.
X1 = 1 - 0.1 * (1 + 1 / 8)
X2 = X1 - 0.2 * (5 / sqrt(27) + X1 / 4)


@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5, "max_learning_rate": 0.4},
    (X1 - 1, X2 - X1, -0.3 * (2 / sqrt(364) + 3 / 8 * X2)),
    moved={"max_learning_rate": [0.3]},
)
def adamc(
    gradients,
    start,
    learning_rate,
    max_learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.05,
    mask=None,
):
    """arXiv:2506.02285, Algorithm 1, for normalized layers."""
    x, steps = start, []
    for t, u in enumerate(scale_by_adam(gradients, b1, b2, eps)):
        gamma = rate(learning_rate, t)
        decay = weight_decay(t) if callable(weight_decay) else weight_decay
        steps.append(-gamma * u - gamma**2 / max_learning_rate * decay * x)
        x = x + steps[-1]
    return steps


Z = 0.9, 0.9 - 1 / sqrt(27), 0.9 - 1 / sqrt(27) - 0.6 / sqrt(364)
X = 0.95, (0.95 + Z[1]) / 2, (0.95 + Z[1]) / 4 + Z[2] / 2
Y = 1.0, (Z[0] + X[0]) / 2, (Z[1] + X[1]) / 2, (Z[2] + X[2]) / 2


@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.0, "mu_x": 0.5, "mu_y": 0.5},
    (Y[1] - Y[0], Y[2] - Y[1], Y[3] - Y[2]),
    moved={"mu_x": [0.5], "mu_y": [0.3]},
    cancels=True,
    # Steps are differences of parameters, which are hundreds of times larger: 28 ulps were seen,
    # and 207 with `mu_x=0.5`.
    ulps=64,
    wider={"mu_x": 400},
)
def gpa_adamw(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=1e-4,
    mask=None,
    mu_x=0.9967,
    mu_y=0.7,
):
    """arXiv:2512.17131, with AdamW's steps of z."""
    x = z = y = start
    steps = []
    moves = descend(scale_by_adam(gradients, b1, b2, eps), start, learning_rate, weight_decay)
    for move in moves:
        z = z + move
        x = mu_x * x + (1 - mu_x) * z
        new = mu_y * x + (1 - mu_y) * z
        steps.append(new - y)
        y = new
    return steps
