"""KL-Shampoo and KL-SOAP."""

from math import sqrt

import numpy as np

import gradtx
from references.adams import X_ADAMW
from references.common import DECAYS, descend, optimizer, piece, squared
from references.soap import (
    ADAM,
    Side,
    decayed_from_second,
    in_blocks,
    mean_over_null_spaces,
    nowhere,
    of_rest_or,
)


def clamped(values, limit):
    """The authors' program: roots of inverses are at most `max(10, min(d, limit))`."""
    if limit is None:
        return values
    return np.maximum(values, 1 / max(10, min(values.size, limit)) ** 2)


def kl(
    gradients,
    adam,
    b1=0.9,
    b2=0.98,
    shampoo_beta=None,
    eps=1e-8,
    precondition_frequency=10,
    init_factor=0.1,
    max_clamp_value=None,
    max_dim=10_000,
    block_size=None,
    eigenbasis="qr",
    skip_first=False,
    stagger=False,  # nothing at a frequency of 1
    weight_dimension_numbers=None,
):
    """Lin et al., arXiv:2509.03378, with the order of the authors' program."""
    if block_size is not None:
        settings = {"b1": b1, "b2": b2, "eps": eps}
        settings["precondition_frequency"] = precondition_frequency
        return in_blocks(lambda part: kl(part, adam, **settings), gradients, block_size)
    beta = b2 if shampoo_beta is None else shampoo_beta
    rows, columns = gradients[0].shape
    left, right = (Side(n, max_dim is None or n <= max_dim) for n in (rows, columns))
    wl, wr = np.full((rows, 1), init_factor), np.full((1, columns), init_factor)
    m, v, out = 0.0, np.zeros((rows, columns)), []
    for k, g in enumerate(gradients):
        ql, qr = left.basis, right.basis
        skipped = skip_first and k == 0
        here = squared(ql.conj().T @ g @ qr)
        if skipped:
            out.append(0 * g)
        else:
            m = b1 * m + (1 - b1) * g
            if adam:
                v = mean_over_null_spaces(b2 * v + (1 - b2) * here, left, right)
                root = np.sqrt(v)
            else:
                root = np.sqrt(wl * wr)
            out.append(ql @ (ql.conj().T @ m @ qr / (root + eps)) @ qr.conj().T)
        of_left, of_right = (1.0, 1.0) if skipped else (1 / wr, 1 / wl)
        x, y = g @ qr, ql.conj().T @ g
        left.moment = beta * left.moment + (1 - beta) * (x * of_left) @ x.conj().T / columns
        right.moment = beta * right.moment + (1 - beta) * y.conj().T @ (of_right * y) / rows
        if not skipped:
            wl, wr = (
                clamped(
                    beta * wl + (1 - beta) * np.mean(here / wr, 1, keepdims=True), max_clamp_value
                ),
                clamped(
                    beta * wr + (1 - beta) * np.mean(here / wl, 0, keepdims=True), max_clamp_value
                ),
            )
        wl = mean_over_null_spaces(wl, left, WHOLE)
        wr = mean_over_null_spaces(wr, WHOLE, right)
        if k % precondition_frequency == 0:
            order = left.renew(eigenbasis == "eigh")
            v, wl = v[order], wl[order]
            order = right.renew(eigenbasis == "eigh")
            v, wr = v[:, order], wr[:, order]
    return out


WHOLE = Side(1, has_basis=False)
OF_MATRICES = {
    "shampoo_beta": [0.5],
    "precondition_frequency": [1, 5],
    "init_factor": [1.0],
    "max_clamp_value": [4000, 2],
    "max_dim": [3, 2, None],
    "block_size": [2],
    "eigenbasis": ["eigh"],
    "skip_first": [True],
    "stagger": [{"stagger": True, "precondition_frequency": 1}],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
}
ATTRIBUTES = {"moved": OF_MATRICES, "shape": (3, 4), "cancels": True, "ulps": 1000}
# Numbers are no matrices and take AdamW's steps.
BY_HAND = (
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (
        -0.1 * (1 + 0.5),
        -0.2 * (10 / 3 / sqrt(12) + 0.5 * 0.85),
        -0.3 * (2 / 7 / sqrt(52 / 7) + 0.5 * X_ADAMW),
    ),
)


@piece(**ATTRIBUTES)
def scale_by_kl_shampoo(gradients, **settings):
    """Lin et al., arXiv:2509.03378: KL-Shampoo."""
    return kl(gradients, adam=False, **settings)


@piece(**ATTRIBUTES)
def scale_by_kl_soap(gradients, **settings):
    """Lin et al., arXiv:2509.03378: KL-SOAP."""
    return kl(gradients, adam=True, **settings)


def with_decay(
    adam,
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.98,
    eps=1e-8,
    weight_decay=0.01,
    skip_first=False,
    of_rest=None,
    weight_dimension_numbers=None,
    **of_matrices,
):
    if np.ndim(start) != 2 or weight_dimension_numbers is nowhere:
        return of_rest_or(of_rest, gradients, start, learning_rate, b1, b2, eps, weight_decay)
    directions = kl(gradients, adam, b1, b2, eps=eps, skip_first=skip_first, **of_matrices)
    step = decayed_from_second if skip_first else descend
    return step(directions, start, learning_rate, weight_decay)


@optimizer(*BY_HAND, **ATTRIBUTES)
def kl_shampoo(gradients, start, learning_rate, **settings):
    """Lin et al., arXiv:2509.03378: KL-Shampoo, with decoupled weight decay."""
    return with_decay(False, gradients, start, learning_rate, **settings)


@optimizer(*BY_HAND, **ATTRIBUTES)
def kl_soap(gradients, start, learning_rate, **settings):
    """Lin et al., arXiv:2509.03378: KL-SOAP, with decoupled weight decay."""
    return with_decay(True, gradients, start, learning_rate, **settings)
