"""What uses the signs of gradients only: SignSGD, Signum, Tiger, Lion."""

import numpy as np

from references.common import descend, optimizer, piece

BETA = {"beta": [0.5, 0.0]}


def angle(z):
    """The sign of a number, or of a complex one `z / |z|`."""
    size = np.abs(z)
    return np.where(size > 0, z / np.where(size > 0, size, 1), 0)


@piece()
def scale_by_sign(gradients):
    """Bernstein et al., arXiv:1802.04434, Algorithm 1."""
    return [angle(g) for g in gradients]


@piece(
    moved={
        "mode": [{"mode": "smooth"}, {"mode": "refined"}],
        "smooth_beta": [{"smooth_beta": 0.3, "mode": "smooth"}, {"smooth_beta": 0.3}],
    }
)
def scale_by_lion(gradients, b1=0.9, b2=0.99, mode="hard", smooth_beta=1.0):
    """Chen et al., arXiv:2302.06675, Algorithm 2; the other modes bound the magnitude more gently:
    arXiv:2310.05898."""
    bound = {
        "hard": np.ones_like,
        "smooth": lambda size: np.tanh(smooth_beta * size),
        "refined": lambda size: np.minimum(size, 1),
    }[mode]
    m, out = 0.0, []
    for g in gradients:
        c = b1 * m + (1 - b1) * g
        out.append(angle(c) * bound(np.abs(c)))
        m = b2 * m + (1 - b2) * g
    return out


@optimizer({}, (-0.1, -0.2, 0.3))
def sign_sgd(gradients, start, learning_rate):
    """Bernstein et al., arXiv:1802.04434, Algorithm 1."""
    return descend(scale_by_sign(gradients), start, learning_rate)


# the average is 1/4 at the third step, still positive
@optimizer({"beta": 0.5}, (-0.1, -0.2, -0.3), moved=BETA)
def signum(gradients, start, learning_rate, beta=0.9):
    """Bernstein et al., arXiv:1802.04434, Algorithm 2."""
    return tiger(gradients, start, learning_rate, beta, 0.0)


# signs of the averages 1, 5/2 and 1/4; x: 1, 0.85, 0.565
@optimizer(
    {"beta": 0.5, "weight_decay": 0.5},
    (-0.1 * 1.5, -0.2 * 1.425, -0.3 * 1.2825),
    moved=BETA,
)
def tiger(gradients, start, learning_rate, beta=0.965, weight_decay=0.01, mask=None):
    """Su (2023), without the factors for single kinds of leaves."""
    m, averages = 0.0, []
    for g in gradients:
        m = beta * m + (1 - beta) * g
        averages.append(m)
    return descend(scale_by_sign(averages), start, learning_rate, weight_decay)


# m as above; c = m/4 + 3/4 g: 3/2, 1/4 + 3, 5/8 - 3/2. x: 1, 0.85, 0.85 - 0.2 * 1.425 = 0.565
@optimizer(
    {"b1": 0.25, "b2": 0.5, "weight_decay": 0.5},
    (-0.1 * (1 + 0.5), -0.2 * (1 + 0.425), -0.3 * (-1 + 0.2825)),
)
def lion(gradients, start, learning_rate, weight_decay=1e-3, **hyperparameters):
    """Chen et al., arXiv:2302.06675, Algorithm 2."""
    return descend(scale_by_lion(gradients, **hyperparameters), start, learning_rate, weight_decay)
