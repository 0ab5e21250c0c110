"""Alice."""

from math import sqrt

import numpy as np

import gradtx
from references.apollo import limited
from references.common import descend, optimizer, piece, squared
from references.kron import draws
from references.racs import M_HAT, V_HAT
from references.soap import ADAM, nowhere, of_rest_or


def leading_eigenvectors(a, count):
    return np.linalg.eigh(a)[1][:, ::-1][:, :count]


def subspace_iteration(a, m):
    """Algorithm 10, with one step; the eigenvectors of `V` are coordinates in the basis `u`."""
    u = np.linalg.qr(a @ m)[0]
    return u @ leading_eigenvectors(u.conj().T @ a @ u, m.shape[1])


def switch(vectors, old, leading, normal):
    """Algorithm 2, lines 3 to 5. The basis of the complement is that of random vectors."""
    m, rank = vectors.shape
    along = np.sum(old.conj() * vectors, axis=0)
    vectors = vectors * (along.conj() / np.abs(along))
    leading = min(rank, max(leading, 2 * rank - m))
    found = list(vectors[:, :leading].T)
    for x in normal.T[leading:]:
        for u in 2 * [*vectors.T, *found]:  # twice, for accuracy
            x = x - u * np.vdot(u, x)
        found.append(x / np.linalg.norm(x))
    return np.array(found).T


def scale_by_alice(
    gradients,
    rank=256,
    leading=40,
    update_proj_gap=200,
    b1=0.9,
    b2=0.9,
    b3=0.999,
    compensation=0.4,
    gamma=1.01,
    key=0,
    weight_dimension_numbers=None,
    leaf=0,
    dtype=np.float64,
):
    """Gong et al., arXiv:2502.07752, Algorithms 2 to 4, for no more rows than columns."""
    m, n = gradients[0].shape
    rank = min(rank, m)
    u, tracked = np.eye(m)[:, :rank], np.zeros((rank, rank))
    mu, nu, p, directions, rests = 0.0, 0.0, np.zeros(n), [], []
    random = draws(key, leaf, (m, rank), dtype)
    for t, g in enumerate(gradients, 1):
        _, normal = next(random)
        if t == 1 or t % update_proj_gap == 0:
            q = b3 * u @ tracked @ u.conj().T + (1 - b3) * g @ g.conj().T
            vectors = leading_eigenvectors(q, rank) if t == 1 else subspace_iteration(q, u)
            u = switch(vectors, u, leading, normal)
        sigma = u.conj().T @ g
        tracked = b3 * tracked + (1 - b3) * sigma @ sigma.conj().T
        mu = b1 * mu + (1 - b1) * sigma
        nu = b2 * nu + (1 - b2) * squared(sigma)
        directions.append(u @ (mu / np.sqrt(nu)))
        rest = g - u @ sigma
        # `sum(g**2) - sum(sigma**2)` by the theorem of Pythagoras, without cancellation
        p = b1 * p + (1 - b1) * squared(rest).sum(0)
        # with m = rank nothing is discarded
        rests.append(sqrt(m - rank) * rest / np.sqrt(p) if m > rank else 0 * g)
    rests = limited(rests, gamma) if m > rank else rests
    return [x + compensation * c for x, c in zip(directions, rests, strict=True)]


OF_MATRICES = {
    "rank": [1, 3],
    "leading": [2],
    "update_proj_gap": [1, 200],
    "b3": [0.5, 0.0],
    "alpha": [0.5],
    "compensation": [0.0, 1.0],
    "gamma": [None, 1.5],
    "key": [7],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
}
# As for GaLore, eigenvectors are less accurate than what else is computed.
ATTRIBUTES = {
    "moved": OF_MATRICES,
    "shape": (3, 4),
    "cancels": True,
    "ulps": 1000,
    "draws": True,
}

scale_by_alice = piece(required={"rank": 2, "leading": 1, "update_proj_gap": 5}, **ATTRIBUTES)(
    scale_by_alice
)


# Numbers are no matrices and take AdamW's steps.
@optimizer(
    {},
    tuple(
        -lr * m / (sqrt(v) + 1e-8) for lr, m, v in zip((0.1, 0.2, 0.3), M_HAT, V_HAT, strict=True)
    ),
    **ATTRIBUTES,
)
def alice(
    gradients,
    start,
    learning_rate,
    alpha=0.3,
    weight_decay=0.0,
    of_rest=None,
    weight_dimension_numbers=None,
    **settings,
):
    """Gong et al., arXiv:2502.07752, with decoupled weight decay."""
    if np.ndim(start) != 2 or weight_dimension_numbers is nowhere:
        given = (learning_rate, 0.9, 0.999, 1e-8, weight_decay)
        return of_rest_or(of_rest, gradients, start, *given)
    directions = scale_by_alice(gradients, **settings)
    return descend([alpha * u for u in directions], start, learning_rate, weight_decay)
