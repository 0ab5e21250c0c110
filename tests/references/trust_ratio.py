"""Steps relative to the norm of each array: LARS, LAMB, Fromage, and their pieces."""

from math import sqrt

import numpy as np

from references.adams import scale_by_adam
from references.common import DECAYS, MASK, optimizer, piece, rate, squared


def norm(x):
    return np.sqrt(np.sum(squared(x)))


def trust(x, u, min_norm=0.0, trust_coefficient=1.0, eps=0.0):
    """You et al., arXiv:1708.03888, eq. 6, with a floor; 1 where a norm is 0."""
    of_x, of_u = max(norm(x), min_norm), max(norm(u), min_norm)
    return trust_coefficient * of_x / (of_u + eps) if of_x and of_u else 1.0


def follow(gradients, start, direction):
    """Takes the steps `direction(x, g)`."""
    x, steps = start, []
    for g in gradients:
        steps.append(direction(x, g))
        x = x + steps[-1]
    return steps


@piece(moved={"min_norm": [3.0], "trust_coefficient": [0.3]})
def scale_by_trust_ratio(gradients, start, **hyperparameters):
    """You et al., arXiv:1708.03888, eq. 6."""
    return follow(gradients, start, lambda x, g: trust(x, g, **hyperparameters) * g)


@piece(moved={"min_scale": [100.0]})
def scale_by_param_block_norm(gradients, start, min_scale=1e-3):
    """As the next one, with the norm."""
    return follow(gradients, start, lambda x, g: max(norm(x), min_scale) * g)


@piece(moved={"min_scale": [100.0]})
def scale_by_param_block_rms(gradients, start, min_scale=1e-3):
    """Shazeer and Stern, arXiv:1804.04235, Algorithm 5, line 4."""
    return follow(gradients, start, lambda x, g: max(norm(x) / np.sqrt(np.size(x)), min_scale) * g)


@piece(
    moved={
        "reps_rel": [1e-2],
        "param_dtype": [{"param_dtype": np.float16}],
        "global_scale": [0.3],
    }
)
def scale_by_distance_over_gradients(
    gradients, start, reps_rel=1e-6, eps=1e-8, param_dtype=np.float32, global_scale=1.0
):
    """Ivgi et al., arXiv:2302.12022, eq. 1 to 3, for each array by itself. The start is stored in
    fewer bits; float16 that is complex is complex64."""
    if np.iscomplexobj(start):
        param_dtype = np.complex64
    x, x_0 = start, start.astype(param_dtype).astype(start.dtype)
    farthest, squares, out = 0.0, 0.0, []
    for g in gradients:
        farthest = max(farthest, norm(x - x_0))
        squares = squares + norm(g) ** 2
        first = reps_rel * (1 + norm(x_0))
        out.append(global_scale * max(farthest, first) / np.sqrt(squares + eps) * g)
        x = x + out[-1]
    return out


# One number's norm is its magnitude, so a step is a fraction of |x| whatever the gradient: a half
# of the rate. With the decay g is 2.5; 4 + 0.95/2; -2 + 0.83/2; v = v/2 - u.
@optimizer(
    {"momentum": 0.5, "weight_decay": 0.5, "trust_coefficient": 0.5},
    (-0.05, -0.025 - 0.1 * 0.95, -0.06 + 0.15 * 0.83),
    moved={
        "momentum": [0.5],
        "eps": [1.0],
        "trust_coefficient": [0.3],
        "trust_ratio_mask": [False],
        "nesterov": [True],
        "separate_norms": [
            {"separate_norms": True, "weight_decay": 0.3, "weight_decay_mask": MASK, "eps": 1.0},
        ],
    },
)
def lars(
    gradients,
    start,
    learning_rate,
    weight_decay=0.0,
    trust_coefficient=0.001,
    eps=0.0,
    trust_ratio_mask=True,
    momentum=0.9,
    nesterov=False,
    separate_norms=False,
):
    """You et al., arXiv:1708.03888, Algorithm 1; without `separate_norms`, with
    |g + weight_decay * x| for its |g| + weight_decay * |x|, as nearly everybody has it."""
    x, v, steps = start, 0.0, []
    for t, g in enumerate(gradients):
        u = g + weight_decay * x
        ratio = trust(x, u, 0.0, trust_coefficient, eps) if trust_ratio_mask else 1.0
        if separate_norms:
            ratio = trust_coefficient * norm(x) / (norm(g) + weight_decay * norm(x) + eps)
        u = -rate(learning_rate, t) * ratio * u
        v = momentum * v + u
        steps.append(u + momentum * v if nesterov else v)
        x = x + steps[-1]
    return steps


# One number again: the fraction is the rate. All three directions are positive.
@optimizer({**DECAYS, "weight_decay": 0.5}, (-0.1, -0.2 * 0.9, -0.3 * 0.72))
def lamb(gradients, start, learning_rate, eps=1e-6, weight_decay=0.0, **hyperparameters):
    """You et al., arXiv:1904.00962, Algorithm 2, with phi(z) = z."""
    x, steps = start, []
    for t, u in enumerate(scale_by_adam(gradients, eps=eps, **hyperparameters)):
        u = u + weight_decay * x
        steps.append(-rate(learning_rate, t) * trust(x, u) * u)
        x = x + steps[-1]
    return steps


# x <- (x - lr * |x| * sign(g)) / sqrt(1 + lr^2)
X_2 = 0.9 / sqrt(1.01)
X_3 = X_2 * 0.8 / sqrt(1.04)
X_4 = X_3 * 1.3 / sqrt(1.09)


@optimizer({}, (X_2 - 1, X_3 - X_2, X_4 - X_3), moved={"min_norm": [3.0]})
def fromage(gradients, start, learning_rate, min_norm=1e-6):
    """Bernstein et al., arXiv:2002.03432, Algorithm 1, with a floor under the norms."""
    x, steps = start, []
    for t, g in enumerate(gradients):
        eta = rate(learning_rate, t)
        prefactor = 1 / np.sqrt(1 + eta**2)
        less_one = np.expm1(-0.5 * np.log1p(eta**2))  # the same less 1, to the last digits
        steps.append(less_one * x - prefactor * eta * trust(x, g, min_norm) * g)
        x = x + steps[-1]
    return steps
