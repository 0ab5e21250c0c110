"""Losses of embeddings against float64 NumPy statements, pair by pair; optax as second opinion."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_program import one_program

from gradtx import check_gradients
from gradtx.losses import ntxent, triplet_margin_loss

# In one program each; without `jit` they are called in test_losses.py.
ntxent, triplet_margin_loss = one_program(ntxent), one_program(triplet_margin_loss)
optax_ntxent, optax_triplets = map(
    one_program, (optax.losses.ntxent, optax.losses.triplet_margin_loss)
)

E = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def contrast(e, labels, temperature):
    """The mean over like pairs, each in its own words."""
    e = np.asarray(e, np.float64)
    unit = e / np.maximum(np.linalg.norm(e, axis=-1, keepdims=True), 1e-300)
    s = unit @ unit.T / temperature
    found = []
    for i in range(len(e)):
        for j in range(len(e)):
            if i == j or labels[i] != labels[j]:
                continue
            rivals = sum(np.exp(s[i, k]) for k in range(len(e)) if labels[k] != labels[i])
            found.append(-np.log(np.exp(s[i, j]) / (np.exp(s[i, j]) + rivals)))
    return np.mean(found) if found else 0.0


@pytest.mark.parametrize(
    "labels", [[0, 0, 1, 1, 2, 2, 2], [0, 1, 0, 1, 0, 1, 5], [3] * 7, list(range(7))]
)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_ntxent_follows_the_equation(labels, temperature):
    labels = np.array(labels)
    got = ntxent(E, labels, temperature)
    np.testing.assert_allclose(got, contrast(E, labels, temperature), rtol=2e-5, atol=1e-7)
    if len(set(labels)) < len(labels):  # without a pair, optax gives nan
        np.testing.assert_allclose(got, optax_ntxent(E, labels, temperature), rtol=1e-4, atol=1e-6)
    slope = jax.grad(ntxent)(E, labels, temperature)
    assert np.isfinite(slope).all()


def test_ntxent_at_zero_and_at_small_temperatures():
    labels = np.array([0, 0, 1, 1, 2, 2, 2])
    e = E.copy()
    e[1] = 0
    np.testing.assert_allclose(ntxent(e, labels), contrast(e, labels, 0.07), rtol=2e-5)
    assert np.isfinite(jax.grad(ntxent)(e, labels)).all()
    # each is opposite to its like and nearly at its rival: cosines of -1 and of cos(0.1)
    angles = np.array([0, 0.1, np.pi, np.pi + 0.1])
    e = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    value, slope = jax.value_and_grad(ntxent)(e, np.array([0, 1, 0, 1]), 1e-3)
    np.testing.assert_allclose(value, (np.cos(0.1) + 1) * 1e3, rtol=1e-5)
    # and the other way round, rivals at exp(-2000) cost nothing
    value, slope = jax.value_and_grad(ntxent)(e, np.array([0, 0, 1, 1]), 1e-3)
    assert value == 0
    assert np.isfinite(slope).all()


def test_ntxent_gradients():
    labels = jnp.array([0, 0, 1, 1, 2, 2, 2])
    check_gradients(lambda e: ntxent(e, labels, 0.5), jnp.asarray(E), show=False).raise_if_bad()


def test_ntxent_errors():
    for e, labels in ((E, np.zeros(6)), (E[None], np.zeros(7)), (E, np.zeros((7, 2)))):
        with pytest.raises(ValueError, match=r"\[batch, features\] and labels of shape \[batch\]"):
            ntxent(e, labels)
    with pytest.raises(TypeError, match="embeddings must be floating-point"):
        ntxent(E.astype(int), np.zeros(7))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        ntxent(E, np.zeros(7), 0)


# ---- Triplets ---------------------------------------------------------------------------------

A, P, N = np.random.default_rng(1).normal(size=(3, 5, 4)).astype(np.float32)


def triplet(a, p, n, axis=-1, degree=2, margin=1.0, eps=1e-6):
    def distance(x, y):
        size = np.abs(x.astype(np.float64) - y)
        if math.isinf(degree):
            return size.max(axis)
        return ((size**degree).sum(axis) + eps) ** (1 / degree)

    return np.maximum(distance(a, p) - distance(a, n) + margin, 0)


@pytest.mark.parametrize("axis", [-1, 0, (0, 1)])
@pytest.mark.parametrize("degree", [1, 2, 2.5, 3, math.inf])
def test_triplets_follow_the_equation(axis, degree):
    got = triplet_margin_loss(A, P, N, axis, degree, 2.5, 0.1)
    np.testing.assert_allclose(got, triplet(A, P, N, axis, degree, 2.5, 0.1), rtol=1e-5, atol=1e-6)
    if degree == 2:  # optax forgets the absolute value, and any other degree is nan or wrong
        want = optax_triplets(A, P, N, axis, degree, 2.5, 0.1)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_triplets_by_hand():
    a, p, n = np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.array([[0.0, 5.5]])
    np.testing.assert_allclose(triplet_margin_loss(a, p, n), [0.5], rtol=1e-5)
    np.testing.assert_allclose(triplet_margin_loss(a, p, n, norm_degree=1), [2.5], rtol=1e-5)
    np.testing.assert_allclose(triplet_margin_loss(a, p, n, norm_degree=math.inf), [0.0])
    np.testing.assert_allclose(triplet_margin_loss(a, n, p), [1.5], rtol=1e-5)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("degree", [1, 2, 3, math.inf])
def test_triplets_that_coincide_have_finite_gradients(eps, degree):
    loss = lambda a, p, n: triplet_margin_loss(a, p, n, norm_degree=degree, eps=eps).sum()  # noqa: E731
    for slope in jax.grad(loss, (0, 1, 2))(A, A, A):
        assert np.isfinite(slope).all()


def test_triplet_errors():
    with pytest.raises(ValueError, match=r"anchors of shape \(5, 4\) and positives .* \(3, 4\)"):
        triplet_margin_loss(A, P[:3], N)
    with pytest.raises(ValueError, match=r"norm_degree must be 1 or more, got 0\.5"):
        triplet_margin_loss(A, P, N, norm_degree=0.5)
    with pytest.raises(TypeError, match="positives must be floating-point"):
        triplet_margin_loss(A, P.astype(int), N)
    assert triplet_margin_loss(A, P[0], N).shape == (5,)
