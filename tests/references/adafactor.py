"""Adafactor."""

from math import sqrt

import numpy as np

from references.common import MASK, optimizer, piece, rate, squared, wave


def rms(x):
    return np.sqrt(np.mean(squared(x)))


def square_root_decay(t, decay_rate):
    """Another decay, which the default is not."""
    return 1 - decay_rate / (t + 1) ** 0.5


@piece(
    moved={
        "factored": [False],
        "decay_rate": [0.5],
        "step_offset": [1, -3],
        "min_dim_size_to_factor": [1],
        "epsilon": [1e-2],
        "decay_rate_fn": [square_root_decay],
    }
)
def scale_by_factored_rms(
    gradients,
    factored=True,
    decay_rate=0.8,
    step_offset=0,
    min_dim_size_to_factor=128,
    epsilon=1e-30,
    decay_rate_fn=lambda t, c: 1 - (t + 1.0) ** -c,
):
    """Shazeer and Stern, arXiv:1804.04235, Algorithm 4 for matrices and 5 for vectors, with the
    decay of section 7.2. Of more axes, the two largest are the matrix, the later ones if in
    doubt."""
    shape = np.shape(gradients[0])
    row, col = ([0, 0, *np.argsort(shape, kind="stable")])[-2:]
    factored = factored and len(shape) > 1 and shape[row] >= min_dim_size_to_factor
    v = r = c = 0.0
    out = []
    for t, g in enumerate(gradients):
        decay = decay_rate_fn(max(t - step_offset, 0), decay_rate)
        square = squared(g) + epsilon
        if factored:
            r = decay * r + (1 - decay) * np.mean(square, axis=col, keepdims=True)
            c = decay * c + (1 - decay) * np.mean(square, axis=row, keepdims=True)
            v = r * c / np.mean(r, axis=row, keepdims=True)
        else:
            v = decay * v + (1 - decay) * square
        out.append(g / np.sqrt(v))
    return out


# With a decay rate of 1, v is the mean of all squares: 4, 10, 8. The directions 1, 4 / sqrt(10)
# and -2 / sqrt(8) are clipped to 1, and a step is that fraction of |x|: 1, 0.9, 0.9 * 0.8.
@optimizer(
    {"decay_rate": 1.0},
    (-0.1, -0.2 * 0.9, 0.3 / sqrt(2) * 0.72),
    moved={
        "min_dim_size_to_factor": [1],
        "learning_rate": [None, 0.02, wave],
        "decay_rate": [0.5],
        "decay_offset": [1, -3],
        "multiply_by_parameter_scale": [False],
        "clipping_threshold": [0.3, None],
        "momentum": [{"momentum": 0.5, "dtype_momentum": None}],
        "dtype_momentum": [{"dtype_momentum": None, "momentum": 0.9}],
        "weight_decay_rate": [0.03],
        "eps": [1e-2],
        "factored": [False],
        "weight_decay_mask": [{"weight_decay_mask": MASK, "weight_decay_rate": 0.03}],
    },
)
def adafactor(
    gradients,
    start,
    learning_rate=None,
    decay_rate=0.8,
    decay_offset=0,
    multiply_by_parameter_scale=True,
    clipping_threshold=1.0,
    momentum=None,
    dtype_momentum=None,
    weight_decay_rate=None,
    eps=1e-30,
    weight_decay=None,
    **hyperparameters,
):
    """Shazeer and Stern, arXiv:1804.04235, Algorithms 4 and 5. The average of steps and a decay
    that no rate multiplies are not the paper's. The tests give `weight_decay=0.0` for arrays that
    a mask leaves out. The momentum's dtype costs digits only."""
    decay = (weight_decay_rate or 0.0) if weight_decay is None else weight_decay
    directions = scale_by_factored_rms(
        gradients, decay_rate=decay_rate, step_offset=decay_offset, epsilon=eps, **hyperparameters
    )
    x, m, steps = start, 0.0, []
    for t, u in enumerate(directions):
        if clipping_threshold is not None:
            u = u / max(1.0, rms(u) / clipping_threshold)
        u = (1.0 if learning_rate is None else rate(learning_rate, t)) * u
        if multiply_by_parameter_scale:
            u = max(rms(x), 1e-3) * u
        if momentum is not None:
            m = momentum * m + (1 - momentum) * u
            u = m
        steps.append(-u - decay * x)
        x = x + steps[-1]
    return steps
