"""APOLLO and Fira."""

from math import sqrt

import numpy as np

import gradtx
from references.adams import scale_by_adam
from references.common import descend, optimizer, piece
from references.galore import projectors
from references.kron import draws
from references.racs import M_HAT, V_HAT
from references.soap import ADAM, nowhere, of_rest_or


def limited(steps, gamma):
    """Fira's norm-growth limiter, equation 7: `|s_t| <= gamma * |s_(t-1)|`."""
    out, last = [], None
    for s in steps:
        if gamma is not None and last is not None and np.linalg.norm(s) > gamma * last:
            s = s / np.linalg.norm(s) * gamma * last
        last = np.linalg.norm(s)
        out.append(s)
    return out


def ratio(d, r, by_column):
    axis = 0 if by_column else None
    return np.linalg.norm(d, axis=axis) / np.linalg.norm(r, axis=axis)


def scale_by_apollo(
    gradients,
    rank=256,
    update_proj_gap=200,
    scale=1.0,
    b1=0.9,
    b2=0.999,
    eps=1e-6,
    scaling="channel",
    projection="random",
    gamma=1.01,
    key=0,
    weight_dimension_numbers=None,
    leaf=0,
    dtype=np.float64,
):
    """Zhu et al., arXiv:2412.05270, Algorithm 1, for no more rows than columns."""
    rows = len(gradients[0])
    if projection == "svd":
        ps = projectors(gradients, rank, update_proj_gap)
    else:
        ps, random = [], draws(key, leaf, (rows, min(rank, rows)), dtype)
        for t, _ in enumerate(gradients):
            _, normal = next(random)
            fresh = t % update_proj_gap == 0
            ps.append(normal / sqrt(min(rank, rows)) if fresh else ps[-1])
    low = [p.conj().T @ g for p, g in zip(ps, gradients, strict=True)]
    adam = scale_by_adam(low, b1, b2, eps)
    steps = [
        g * ratio(d, r, scaling == "channel") for g, d, r in zip(gradients, adam, low, strict=True)
    ]
    return [scale * u for u in limited(steps, gamma)]


def scale_by_fira(
    gradients,
    rank=128,
    update_proj_gap=200,
    scale=1.0,
    b1=0.9,
    b2=0.999,
    eps=1e-6,
    gamma=1.01,
    weight_dimension_numbers=None,
):
    """Chen et al., arXiv:2410.01623, Algorithm 1, for no more rows than columns."""
    ps = projectors(gradients, rank, update_proj_gap)
    low = [p.conj().T @ g for p, g in zip(ps, gradients, strict=True)]
    adam = scale_by_adam(low, b1, b2, eps)
    rest = limited(
        [
            (g - p @ r) * ratio(d, r, True)
            for g, p, r, d in zip(gradients, ps, low, adam, strict=True)
        ],
        gamma,
    )
    return [scale * (p @ d + s) for p, d, s in zip(ps, adam, rest, strict=True)]


OF_BOTH = {
    "rank": [2, 3],
    "update_proj_gap": [1, 200],
    "scale": [0.25],
    "gamma": [None, 1.5],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
}
OF_APOLLO = {
    **OF_BOTH,
    "scaling": ["tensor"],
    "projection": ["svd"],
    "key": [7],
}
# As for GaLore, singular vectors are less accurate than what else is computed.
ATTRIBUTES = {"shape": (3, 4), "cancels": True, "ulps": 1000}
APOLLO = {**ATTRIBUTES, "moved": OF_APOLLO, "draws": True}
FIRA = {**ATTRIBUTES, "moved": OF_BOTH}
REQUIRED = {"rank": 1, "update_proj_gap": 5}

scale_by_apollo = piece(required=REQUIRED, **APOLLO)(scale_by_apollo)
scale_by_fira = piece(required=REQUIRED, **FIRA)(scale_by_fira)

# Numbers are no matrices and take AdamW's steps.
BY_HAND = tuple(
    -lr * m / (sqrt(v) + 1e-6) for lr, m, v in zip((0.1, 0.2, 0.3), M_HAT, V_HAT, strict=True)
)


def with_rest(function, gradients, start, learning_rate, weight_decay, of_rest, axes, **settings):
    if np.ndim(start) != 2 or axes is nowhere:
        b1, b2, eps = (settings.get(*x) for x in (("b1", 0.9), ("b2", 0.999), ("eps", 1e-6)))
        return of_rest_or(of_rest, gradients, start, learning_rate, b1, b2, eps, weight_decay)
    return descend(function(gradients, **settings), start, learning_rate, weight_decay)


@optimizer({}, BY_HAND, **APOLLO)
def apollo(
    gradients,
    start,
    learning_rate,
    weight_decay=0.0,
    of_rest=None,
    weight_dimension_numbers=None,
    **settings,
):
    """Zhu et al., arXiv:2412.05270, with decoupled weight decay."""
    given = (gradients, start, learning_rate, weight_decay, of_rest, weight_dimension_numbers)
    return with_rest(scale_by_apollo, *given, **settings)


@optimizer({}, BY_HAND, **APOLLO)
def apollo_mini(gradients, start, learning_rate, scale=128**0.5, **settings):
    """Zhu et al., arXiv:2412.05270: rank 1, and one factor for each matrix."""
    mini = {"rank": 1, "scaling": "tensor", "scale": scale}
    return apollo(gradients, start, learning_rate, **mini, **settings)


@optimizer({}, BY_HAND, **FIRA)
def fira(
    gradients,
    start,
    learning_rate,
    weight_decay=0.0,
    of_rest=None,
    weight_dimension_numbers=None,
    **settings,
):
    """Chen et al., arXiv:2410.01623, with decoupled weight decay."""
    given = (gradients, start, learning_rate, weight_decay, of_rest, weight_dimension_numbers)
    return with_rest(scale_by_fira, *given, **settings)
