"""Shampoo."""

from math import sqrt

import numpy as np

import gradtx
from references.adams import X_ADAMW, scale_by_adam
from references.adaptive import scale_by_rms, scale_by_rss
from references.common import DECAYS, descend, optimizer, piece
from references.soap import ADAM, in_blocks, nowhere, of_rest_or, resolved


def inverse_root(a, p, eps):
    """Gupta et al., arXiv:1802.09568; eigenvalues that are rounding errors count as the largest
    that is."""
    values, vectors = np.linalg.eigh(a)
    raised = np.maximum(values, resolved(len(a)) * np.max(values)) + eps
    return vectors * raised ** (-1 / p) @ vectors.conj().T


def scale_by_shampoo(
    gradients,
    b1=0.9,
    b2=0.999,
    eps=1e-12,
    precondition_frequency=10,
    accumulation="average",
    exponent_override=None,
    root="eigh",
    max_dim=10_000,
    block_size=None,
    stagger=False,  # nothing at a frequency of 1
    weight_dimension_numbers=None,
):
    """Gupta et al., arXiv:1802.09568, Algorithm 1; averages: Shi et al., arXiv:2309.06497."""
    if block_size is not None:
        settings = {"b1": b1, "b2": b2, "eps": eps}
        settings["precondition_frequency"] = precondition_frequency
        return in_blocks(lambda part: scale_by_shampoo(part, **settings), gradients, block_size)
    rows, columns = gradients[0].shape
    left, right, m, out = np.zeros((rows, rows)), np.zeros((columns, columns)), 0.0, []
    sides = [max_dim is None or n <= max_dim for n in (rows, columns)]
    p = exponent_override or 2 * sum(sides)
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        if accumulation == "sum":
            left, right, weight = left + g @ g.conj().T, right + g.conj().T @ g, 1.0
        else:
            left = b2 * left + (1 - b2) * g @ g.conj().T
            right = b2 * right + (1 - b2) * g.conj().T @ g
            weight = 1 - b2**t
        if (t - 1) % precondition_frequency == 0:
            left_root = inverse_root(left / weight, p, eps) if sides[0] else np.eye(rows)
            right_root = inverse_root(right / weight, p, eps) if sides[1] else np.eye(columns)
        out.append(left_root @ m @ right_root / (1 - b1**t))
    return out


SIGN = gradtx.scale_by_sign()
OF_MATRICES = {
    "eps": [1e-2],
    # Roots of the first gradient's second moment meet the others in its null space, where their
    # condition is that of `eps` beside the largest eigenvalue.
    "precondition_frequency": [{"precondition_frequency": n, "eps": 100.0} for n in (3, 5)],
    "accumulation": ["sum"],
    "exponent_override": [2],
    "root": ["newton"],
    "max_dim": [3, 2, None],
    "block_size": [2],
    "stagger": [{"stagger": True, "precondition_frequency": 1}],
    "weight_dimension_numbers": [lambda tree: dict.fromkeys(tree, gradtx.MatrixAxes(1, 0))],
    "of_rest": [{"of_rest": ADAM, "weight_dimension_numbers": nowhere}],
    "grafting": ["rmsprop", "adagrad", "sgd", None, SIGN],
    "grafting_eps": [1e-2],
}
# Without an eps, the root of the first gradient's second moment has a condition number of 1e8.
ATTRIBUTES = {"moved": OF_MATRICES, "shape": (3, 4), "cancels": True, "ulps": 1000}

scale_by_shampoo = piece(required={"eps": 0.1}, **ATTRIBUTES)(scale_by_shampoo)


def magnitudes(grafting, gradients, b1, b2, eps):
    if grafting == "adam":
        return scale_by_adam(gradients, b1, b2, eps)
    if grafting == "rmsprop":
        return scale_by_rms(gradients, b2, eps, bias_correction=True, eps_in_sqrt=False)
    if grafting == "adagrad":
        return scale_by_rss(gradients, 0.0, eps)
    return [np.sign(g) for g in gradients] if grafting is SIGN else gradients


@piece(
    required={"eps": 0.1},
    moved={
        "eps": [1e-2],
        "precondition_frequency": [{"precondition_frequency": n, "eps": 100.0} for n in (3, 5)],
        "accumulation": ["sum"],
        "exponent_override": [2],
        "root": ["newton"],
        "max_dim": [3, 2, 1, None],
    },
    shape=(4, 2, 3),
    cancels=True,
    ulps=1000,
)
def scale_by_tensor_shampoo(
    gradients,
    b1=0.9,
    b2=0.999,
    eps=1e-12,
    precondition_frequency=10,
    accumulation="average",
    exponent_override=None,
    root="eigh",
    max_dim=1024,
):
    """Gupta et al., arXiv:1802.09568, Algorithm 2, for tensors of three axes."""
    letters, out, m = "abc", [], 0.0
    axes = [i for i, n in enumerate(gradients[0].shape) if max_dim is None or n <= max_dim]
    moments, roots = dict.fromkeys(axes, 0.0), {}
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        u = m / (1 - b1**t)
        for i in axes:
            x = letters[i]
            new = np.einsum(f"abc,{letters.replace(x, 'z')}->{x}z", g, g.conj())
            sums = accumulation == "sum"
            moments[i] = moments[i] + new if sums else b2 * moments[i] + (1 - b2) * new
            if (t - 1) % precondition_frequency == 0:
                p = exponent_override or 2 * len(axes)
                roots[i] = inverse_root(moments[i] / (1 if sums else 1 - b2**t), p, eps)
            u = np.einsum(f"z{x},abc->{letters.replace(x, 'z')}", roots[i], u)
        out.append(u)
    return out


# Numbers are no matrices and take AdamW's steps.
@optimizer(
    {**DECAYS, "grafting_eps": 0.0, "weight_decay": 0.5},
    (
        -0.1 * (1 + 0.5),
        -0.2 * (10 / 3 / sqrt(12) + 0.5 * 0.85),
        -0.3 * (2 / 7 / sqrt(52 / 7) + 0.5 * X_ADAMW),
    ),
    **ATTRIBUTES,
)
def shampoo(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-12,
    weight_decay=0.0,
    grafting="adam",
    grafting_eps=1e-8,
    of_rest=None,
    weight_dimension_numbers=None,
    **of_matrices,
):
    """Gupta et al., arXiv:1802.09568, grafted as by Agarwal et al., arXiv:2002.11803."""
    if np.ndim(start) != 2 or weight_dimension_numbers is nowhere:
        settings = (learning_rate, b1, b2, grafting_eps, weight_decay)
        return of_rest_or(of_rest, gradients, start, *settings)
    directions = scale_by_shampoo(gradients, b1, b2, eps, **of_matrices)
    if grafting is not None:
        norms = magnitudes(grafting, gradients, b1, b2, grafting_eps)
        directions = [
            u * np.linalg.norm(v) / np.linalg.norm(u)
            for u, v in zip(directions, norms, strict=True)
        ]
    return descend(directions, start, learning_rate, weight_decay)
