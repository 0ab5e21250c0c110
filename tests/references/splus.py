"""SPlus."""

import numpy as np

import gradtx
from references.common import descend, optimizer, piece
from references.soap import (
    ADAM,
    Side,
    in_blocks,
    mean_over_null_spaces,
    nowhere,
    of_rest_or,
    resolved,
)


def signs(m, left, right):
    """Coordinates over their magnitudes, those of null spaces over the root of their mean square;
    rounding errors are 0."""
    unit = m / np.max(np.abs(m))
    unit = np.where(np.abs(unit) > resolved(max(m.shape)), unit, 0)
    squares = mean_over_null_spaces(np.abs(unit) ** 2, left, right)
    return unit / np.sqrt(np.where(squares > 0, squares, 1))


def scale_by_splus(
    gradients,
    b1=0.9,
    b2=0.999,
    precondition_frequency=100,
    max_dim=10_000,
    block_size=None,
    eigenbasis="eigh",
    stagger=False,  # nothing at a frequency of 1
    weight_dimension_numbers=None,
):
    """Frans et al., arXiv:2506.07254."""
    if block_size is not None:
        settings = {"b1": b1, "b2": b2, "precondition_frequency": precondition_frequency}
        return in_blocks(lambda part: scale_by_splus(part, **settings), gradients, block_size)
    left, right = (Side(n, max_dim is None or n <= max_dim) for n in gradients[0].shape)
    m, out = 0.0, []
    for k, g in enumerate(gradients):
        ql, qr = left.basis, right.basis
        m = b1 * m + (1 - b1) * g
        out.append(ql @ signs(ql.conj().T @ m @ qr, left, right) @ qr.conj().T)
        left.moment = b2 * left.moment + (1 - b2) * g @ g.conj().T
        right.moment = b2 * right.moment + (1 - b2) * g.conj().T @ g
        if k % precondition_frequency == 0:
            left.renew(eigenbasis == "eigh")
            right.renew(eigenbasis == "eigh")
    return out


OF_MATRICES = {
    "precondition_frequency": [1, 5],
    "nonstandard_constant": [0.001],
    "max_dim": [3, 2, None],
    "block_size": [2],
    "eigenbasis": ["qr"],
    "stagger": [{"stagger": True, "precondition_frequency": 1}],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
}
ATTRIBUTES = {"moved": OF_MATRICES, "shape": (3, 4), "cancels": True, "ulps": 1000}

scale_by_splus = piece(**ATTRIBUTES)(scale_by_splus)


# Numbers are no matrices and take steps by the signs of momentum: 1, 5/2, 1/4.
@optimizer({"b1": 0.5, "weight_decay": 0.0}, (-1e-4, -2e-4, -3e-4), **ATTRIBUTES)
def splus(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
    nonstandard_constant=0.001,
    of_rest=None,
    weight_dimension_numbers=None,
    **of_matrices,
):
    """Frans et al., arXiv:2506.07254, with its factors for shapes."""

    def rate(factor):
        return lambda t: factor * (learning_rate(t) if callable(learning_rate) else learning_rate)

    if of_rest is ADAM and weight_dimension_numbers is nowhere:
        return of_rest_or(of_rest, gradients, start, *[None] * 5)
    if np.ndim(start) != 2 or weight_dimension_numbers is nowhere:
        m, directions = 0.0, []
        for g in gradients:
            m = b1 * m + (1 - b1) * g
            directions.append(np.sign(m))
        return descend(directions, start, rate(nonstandard_constant), weight_decay)
    directions = scale_by_splus(gradients, b1, b2, **of_matrices)
    return descend(directions, start, rate(2 / sum(start.shape)), weight_decay)
