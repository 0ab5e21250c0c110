"""SOAP."""

from math import sqrt

import numpy as np

import gradtx
from references.adams import X_ADAMW, scale_by_adam
from references.common import DECAYS, descend, optimizer, piece, squared


def resolved(n):
    """The least eigenvalue that is not rounding error, relative to the largest."""
    return 4 * np.sqrt(n) * np.finfo(np.float64).eps


class Side:
    """Rows or columns: the moving average of their second moments, and its eigenbasis."""

    def __init__(self, size, has_basis=True):
        self.moment, self.basis, self.rank = np.zeros((size, size)), np.eye(size), 0
        self.has_basis = has_basis
        if not has_basis:
            self.rank = size

    def renew(self, by_eigh):
        """The eigenbasis by descending eigenvalues; the columns of the last that they replace."""
        size = len(self.basis)
        order = np.arange(size)
        if not self.has_basis:
            return order
        if by_eigh or self.rank < size:
            values, vectors = np.linalg.eigh(self.moment)
            values, self.basis = values[::-1], vectors[:, ::-1]
        else:
            along = np.diag(self.basis.conj().T @ self.moment @ self.basis).real
            order = np.argsort(-along, kind="stable")
            self.basis, r = np.linalg.qr(self.moment @ self.basis[:, order])
            values = np.abs(np.diag(r))
        self.rank = np.sum(values > resolved(size) * np.max(values))
        return order


def mean_over_null_spaces(v, left, right):
    """Squares along eigenvectors that are arbitrary are replaced by their mean.

    The square of 64 rounding errors of the whole is added to it.
    """
    v, least = v.copy(), (64 * np.finfo(np.float64).eps) ** 2 * np.sum(v)
    if left.rank < len(v):
        v[left.rank :] = np.mean(v[left.rank :], axis=0) + least
    if right.rank < v.shape[1]:
        v[:, right.rank :] = np.mean(v[:, right.rank :], axis=1, keepdims=True) + least
    return v


def in_blocks(function, gradients, size):
    """Applies a function of the gradients of one matrix to each block of a matrix."""
    rows, columns = gradients[0].shape
    many = [-(-side // size) for side in (rows, columns)]
    r, c = (-(-side // k) for side, k in zip((rows, columns), many, strict=True))
    whole = [np.pad(g, ((0, many[0] * r - rows), (0, many[1] * c - columns))) for g in gradients]
    out = [np.zeros_like(g) for g in whole]
    for i in range(many[0]):
        for j in range(many[1]):
            part = np.s_[i * r : (i + 1) * r, j * c : (j + 1) * c]
            for u, mine in zip(out, function([g[part] for g in whole]), strict=True):
                u[part] = mine
    return [u[:rows, :columns] for u in out]


def scale_by_soap(
    gradients,
    b1=0.95,
    b2=0.95,
    shampoo_beta=None,
    eps=1e-8,
    precondition_frequency=10,
    max_dim=10_000,
    block_size=None,
    eigenbasis="qr",
    skip_first=False,
    eps_before_correction=False,
    stagger=False,  # nothing at a frequency of 1
    weight_dimension_numbers=None,
):
    """Vyas et al., arXiv:2409.11321, Algorithms 3 and 4, with Adam's bias corrections."""
    if block_size is not None:
        settings = {"b1": b1, "b2": b2, "eps": eps}
        settings["precondition_frequency"] = precondition_frequency
        return in_blocks(lambda part: scale_by_soap(part, **settings), gradients, block_size)
    beta = b2 if shampoo_beta is None else shampoo_beta
    left, right = (Side(n, max_dim is None or n <= max_dim) for n in gradients[0].shape)
    m, v, out, t = 0.0, np.zeros(gradients[0].shape), [], 0
    for k, g in enumerate(gradients):
        ql, qr = left.basis, right.basis
        if k == 0 and skip_first:
            out.append(0 * g)
        else:
            t += 1
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * squared(ql.conj().T @ g @ qr)
            v = mean_over_null_spaces(v, left, right)
            m_hat, v_hat = ql.conj().T @ m @ qr / (1 - b1**t), v / (1 - b2**t)
            added = eps / np.sqrt(1 - b2**t) if eps_before_correction else eps
            out.append(ql @ (m_hat / (np.sqrt(v_hat) + added)) @ qr.conj().T)
        left.moment = beta * left.moment + (1 - beta) * g @ g.conj().T
        right.moment = beta * right.moment + (1 - beta) * g.conj().T @ g
        if k % precondition_frequency == 0:
            v = v[left.renew(eigenbasis == "eigh")]
            v = v[:, right.renew(eigenbasis == "eigh")]
    return out


def nowhere(tree):
    return dict.fromkeys(tree)


ADAM = gradtx.adam(0.1)
OF_MATRICES = {
    "shampoo_beta": [0.5],
    "precondition_frequency": [1, 5],
    "max_dim": [3, 2, None],
    "block_size": [2],
    "eigenbasis": ["eigh"],
    "skip_first": [True],
    "eps_before_correction": [{"eps_before_correction": True, "eps": 1e-2}],
    "stagger": [{"stagger": True, "precondition_frequency": 1}],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
}
ATTRIBUTES = {"moved": OF_MATRICES, "shape": (3, 4), "cancels": True, "ulps": 1000}

scale_by_soap = piece(**ATTRIBUTES)(scale_by_soap)


def of_rest_or(of_rest, gradients, start, learning_rate, b1, b2, eps, weight_decay):
    """What is no matrix is left to AdamW, or to `ADAM`."""
    if of_rest is ADAM:
        return descend(scale_by_adam(gradients), start, 0.1)
    directions = scale_by_adam(gradients, b1, b2, eps)
    return descend(directions, start, learning_rate, weight_decay)


def decayed_from_second(directions, start, learning_rate, weight_decay):
    """As `descend`, but neither moved nor decayed at the first step."""

    def rate(count):
        return (
            0.0
            if count == 0
            else (learning_rate(count) if callable(learning_rate) else learning_rate)
        )

    return descend(directions, start, rate, weight_decay)


# Numbers are no matrices and take AdamW's steps.
@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (
        -0.1 * (1 + 0.5),
        -0.2 * (10 / 3 / sqrt(12) + 0.5 * 0.85),
        -0.3 * (2 / 7 / sqrt(52 / 7) + 0.5 * X_ADAMW),
    ),
    **ATTRIBUTES,
)
def soap(
    gradients,
    start,
    learning_rate,
    b1=0.95,
    b2=0.95,
    eps=1e-8,
    weight_decay=0.01,
    skip_first=False,
    of_rest=None,
    weight_dimension_numbers=None,
    **of_matrices,
):
    """Vyas et al., arXiv:2409.11321, with decoupled weight decay."""
    if np.ndim(start) != 2 or weight_dimension_numbers is nowhere:
        return of_rest_or(of_rest, gradients, start, learning_rate, b1, b2, eps, weight_decay)
    directions = scale_by_soap(gradients, b1, b2, eps=eps, skip_first=skip_first, **of_matrices)
    step = decayed_from_second if skip_first else descend
    return step(directions, start, learning_rate, weight_decay)
