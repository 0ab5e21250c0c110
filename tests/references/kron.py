"""PSGD Kron."""

from functools import partial
from math import exp, sqrt

import jax
import numpy as np

import gradtx
from references.common import descend, optimizer, piece, rate, squared
from references.racs import M_HAT, V_HAT
from references.soap import ADAM, nowhere, of_rest_or


def annealed(count):
    """The probability of the authors' program."""
    return min(max(exp(-0.001 * (count - 200)), 0.03), 1.0)


@partial(jax.jit, static_argnums=(1, 2))
def normal(key, shape, dtype):
    return jax.random.normal(key, shape, dtype)


def draws(seed, leaf, shape, dtype):
    """A uniform number for all matrices, and normal ones for that of a leaf; for step after step.

    Of the keys that a split of the first one gives, the first is that of the next step, the second
    that of all matrices, and the third that of the uniform number.
    """
    key = seed if isinstance(seed, jax.Array) else jax.random.key(seed)
    while True:
        chance = jax.random.uniform(jax.random.fold_in(key, 2))
        key, used = jax.random.split(key)
        mine = jax.random.fold_in(jax.random.fold_in(used, leaf), 0)
        yield float(chance), np.asarray(normal(mine, shape, dtype))


def norm_bound(a):
    """Of a Hermitian matrix: one power iteration from its longest column."""
    x = a @ a[:, np.argmax(np.sum(squared(a), axis=0))]
    return np.linalg.norm(a @ x) / np.linalg.norm(x)


class Factor:
    """An upper triangular matrix of the rows or columns, or a diagonal one."""

    def __init__(self, size, triangular, scale):
        self.q, self.triangular = sqrt(scale) * np.eye(size), triangular

    def fit(self, a, b, step):
        """One step downhill from `tr(a a' + b b')`, relative to the norm."""
        plus, minus = a @ a.conj().T + b @ b.conj().T, a @ a.conj().T - b @ b.conj().T
        if self.triangular:
            change = np.triu(minus) / norm_bound(plus)
        else:
            change = np.diag(np.diag(minus)) / np.max(np.diag(plus).real)
        self.q = self.q - step * change @ self.q


def scale_by_kron(
    gradients,
    b1=0.9,
    preconditioner_update_probability=annealed,
    max_size_triangular=8192,
    max_skew_triangular=None,
    precond_lr=0.1,
    precond_init_scale=1.0,
    damping=1e-9,
    max_rms=1.1,
    momentum_into_preconditioner=True,
    bias_correction=True,
    key=0,
    weight_dimension_numbers=None,
    leaf=0,
    dtype=np.float64,
):
    """Li, arXiv:2402.11858, for `P = Q' Q` in the group of triangular matrices: `E[g' P g + v'
    inv(P) v]` descends by `dQ = E Q`, with the step divided by a norm."""
    shape = gradients[0].shape
    left, right = (
        Factor(
            size,
            size <= max_size_triangular
            and (max_skew_triangular is None or size <= max_skew_triangular * min(shape)),
            precond_init_scale,
        )
        for size in shape
    )
    mu, out, random = 0.0, [], draws(key, leaf, shape, dtype)
    for t, g in enumerate(gradients):
        chance, v = next(random)
        mu = b1 * mu + (1 - b1) * g
        m = mu / (1 - b1 ** (t + 1)) if bias_correction else mu
        if chance < rate(preconditioner_update_probability, t):
            x = (m if momentum_into_preconditioner else g) + damping * v
            a = left.q @ x @ right.q.conj().T
            b = np.linalg.inv(left.q).conj().T @ v @ np.linalg.inv(right.q)
            left.fit(a, b, rate(precond_lr, t))
            right.fit(a.conj().T, b.conj().T, rate(precond_lr, t))
        u = left.q.conj().T @ left.q @ m @ right.q.conj().T @ right.q
        if max_rms is not None:
            u = u / max(1.0, np.sqrt(np.mean(squared(u))) / max_rms)
        out.append(u)
    return out


def falling(count):
    return 0.9 ** (count + 1)


OF_MATRICES = {
    "preconditioner_update_probability": [0.5, 0.0, falling],
    "max_size_triangular": [3, 1],
    "max_skew_triangular": [1, 2],
    "precond_lr": [0.5, falling],
    "precond_init_scale": [0.25],
    "damping": [0.5, 0.0],
    "max_rms": [None, 0.5],
    "momentum_into_preconditioner": [False],
    "bias_correction": [False],
    "key": [7, jax.random.key(7)],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
}
ATTRIBUTES = {"moved": OF_MATRICES, "shape": (3, 4), "cancels": True, "draws": True, "ulps": 1000}

scale_by_kron = piece(**ATTRIBUTES)(scale_by_kron)


# Numbers are no matrices and take AdamW's steps.
@optimizer(
    {},
    tuple(
        -lr * m / (sqrt(v) + 1e-8) for lr, m, v in zip((0.1, 0.2, 0.3), M_HAT, V_HAT, strict=True)
    ),
    **ATTRIBUTES,
)
def kron(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    weight_decay=0.0,
    of_rest=None,
    weight_dimension_numbers=None,
    **of_matrices,
):
    """Li, arXiv:2402.11858, with decoupled weight decay."""
    if np.ndim(start) != 2 or weight_dimension_numbers is nowhere:
        settings = (learning_rate, b1, 0.999, 1e-8, weight_decay)
        return of_rest_or(of_rest, gradients, start, *settings)
    directions = scale_by_kron(gradients, b1, **of_matrices)
    return descend(directions, start, learning_rate, weight_decay)
