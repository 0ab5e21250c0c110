"""GaLore."""

from math import sqrt

import numpy as np

import gradtx
from gradtx import GaLoreDimensionNumbers
from references.adams import scale_by_adam
from references.common import descend, optimizer, piece

HALVES = gradtx.scale_by_adam(0.5, 0.5, 0.0)
PLAIN = gradtx.identity()
BASES = {
    None: scale_by_adam,
    HALVES: lambda gradients: scale_by_adam(gradients, 0.5, 0.5, 0.0),
    PLAIN: lambda gradients: gradients,
}


def nowhere(tree):
    return dict.fromkeys(tree)


def everywhere(tree):
    return {n: GaLoreDimensionNumbers(0, 1) if np.ndim(x) == 2 else None for n, x in tree.items()}


def projectors(gradients, rank, gap):
    """The paper's Algorithm 2 for `m <= n`: the first columns of U, every `gap` steps. Which of
    the columns `u` and `-u` it is, the paper leaves open: the one nearer to the last."""
    m, n = gradients[0].shape
    rank = min(rank, m, n)
    p, found = np.eye(m)[:, :rank], []
    for t, g in enumerate(gradients):
        if t % gap == 0:
            u = np.linalg.svd(g)[0][:, :rank]
            along = np.sum(p.conj() * u, axis=0)
            p = u * (along.conj() / np.abs(along))
        found.append(p)
    return found


def scale_by_galore(
    gradients,
    rank=128,
    update_proj_gap=200,
    scale=1.0,
    base_optimizer=None,
    weight_dimension_numbers=None,
):
    """Zhao et al., arXiv:2403.03507, Algorithm 2."""
    base = BASES[base_optimizer]
    if np.ndim(gradients[0]) != 2 or weight_dimension_numbers is nowhere:
        return base(gradients)
    rows, columns = gradients[0].shape
    shorter_shrinks = rank < min(rows, columns)
    turned = (rows > columns) == shorter_shrinks and rows != columns
    if turned:  # G Q is the transpose of Q' G'
        gradients = [g.T for g in gradients]
    ps = projectors(gradients, rank, update_proj_gap)
    low = base([p.conj().T @ g for p, g in zip(ps, gradients, strict=True)])
    out = [scale * p @ n for p, n in zip(ps, low, strict=True)]
    return [u.T for u in out] if turned else out


# Numbers are no matrices and take the base optimizer's steps, of which these are Adam's.
# Singular vectors in float32 are off by eps times the ratio of a singular value to its distance
# from the next; the gradients' sizes differ so widely that small elements then are made of noise.
ATTRIBUTES = {
    "moved": {
        "rank": [2, 3],
        "update_proj_gap": [1, 200],
        "scale": [0.25],
        "base_optimizer": [HALVES, PLAIN],
        "weight_dimension_numbers": [nowhere, everywhere],
    },
    "shape": (3, 4),
    "cancels": True,
    "ulps": 1000,
}

scale_by_galore = piece(required={"rank": 1, "update_proj_gap": 5}, **ATTRIBUTES)(scale_by_galore)


@optimizer(
    {"base_optimizer": HALVES},
    (-0.1, -0.2 * 10 / 3 / sqrt(12), -0.3 * 2 / 7 / sqrt(52 / 7)),
    **ATTRIBUTES,
)
def galore(gradients, start, learning_rate, weight_decay=0.0, **of_scale):
    """Zhao et al., arXiv:2403.03507, with decoupled weight decay."""
    return descend(scale_by_galore(gradients, **of_scale), start, learning_rate, weight_decay)
