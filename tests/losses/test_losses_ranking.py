"""Ranking, label smoothing and Fenchel-Young losses against float64 NumPy statements."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_program import one_program

from gradtx.losses import (
    make_fenchel_young_loss,
    ranking_softmax_loss,
    smooth_labels,
    softmax_cross_entropy,
)

# In one program each; without `jit` they are called in test_losses.py.
ranking_softmax_loss, smooth_labels, softmax_cross_entropy = map(
    one_program, (ranking_softmax_loss, smooth_labels, softmax_cross_entropy)
)

SCORES = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
RELEVANCE = np.array([[0, 1, 2, 0], [0, 0, 1, 0], [3, 0, 0, 1]], np.float32)
WEIGHTS = np.array([[1, 2, 0.5, 1], [1, 1, 3, 1], [0, 1, 1, 2]], np.float32)


def log_softmax(z):
    z = np.asarray(z, np.float64)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def test_ranking_follows_the_equation():
    want = -(WEIGHTS * RELEVANCE * log_softmax(SCORES)).sum(-1)
    got = ranking_softmax_loss(SCORES, RELEVANCE, weights=WEIGHTS, reduce_fn=None)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    for reduce_fn, number in ((jnp.mean, want.mean()), (jnp.sum, want.sum())):
        got = ranking_softmax_loss(SCORES, RELEVANCE, weights=WEIGHTS, reduce_fn=reduce_fn)
        np.testing.assert_allclose(got, number, rtol=1e-6)
    theirs = optax.losses.ranking_softmax_loss(SCORES, RELEVANCE, weights=WEIGHTS[0])
    ours = ranking_softmax_loss(SCORES, RELEVANCE, weights=WEIGHTS[0])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("left_out", [0.0, np.inf, np.nan])
def test_ranking_items_that_are_not_there(left_out):
    there = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    z, y, w = SCORES.copy(), RELEVANCE.copy(), WEIGHTS.copy()
    want = [
        -(w[i] * y[i])[m] @ log_softmax(z[i][m]) if m.any() else 0.0 for i, m in enumerate(there)
    ]
    for x in (z, y, w):
        x[~there] = left_out

    def loss(z, **kw):
        return ranking_softmax_loss(z, y, where=there, weights=w, **kw)

    np.testing.assert_allclose(loss(z, reduce_fn=None), want, rtol=1e-6)
    np.testing.assert_allclose(loss(z), np.mean(want[:2]), rtol=1e-6)  # the third has no items
    np.testing.assert_allclose(loss(z, reduce_fn=jnp.sum), np.sum(want), rtol=1e-6)
    slope = jax.grad(loss)(z)
    assert np.isfinite(slope).all() and (np.asarray(slope)[~there] == 0).all()


def test_ranking_of_nothing():
    nothing = np.zeros((3, 4), bool)
    value, slope = jax.value_and_grad(ranking_softmax_loss)(SCORES, RELEVANCE, where=nothing)
    assert value == 0
    np.testing.assert_array_equal(slope, np.zeros((3, 4)))
    # a mask by item, for all lists
    kept = np.array([True, True, False, True])
    np.testing.assert_allclose(
        ranking_softmax_loss(SCORES, RELEVANCE, where=kept),
        ranking_softmax_loss(SCORES[:, kept], RELEVANCE[:, kept]),
        rtol=1e-6,
    )


def test_ranking_errors():
    with pytest.raises(TypeError, match="ranking_softmax_loss: logits must be floating-point"):
        ranking_softmax_loss(RELEVANCE.astype(int), RELEVANCE)
    with pytest.raises(ValueError, match=r"logits of shape \(3, 4\) and labels .* \(3,\)"):
        ranking_softmax_loss(SCORES, RELEVANCE[:, 0])
    with pytest.raises(ValueError, match=r"weights of shape \(2,\) do not broadcast"):
        ranking_softmax_loss(SCORES, RELEVANCE, weights=np.ones(2))


# ---- Label smoothing --------------------------------------------------------------------------


def test_smoothing_by_hand():
    labels = np.eye(4, dtype=np.float32)[[0, 2]]
    np.testing.assert_allclose(
        smooth_labels(labels, 0.2), [[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]], rtol=1e-6
    )
    np.testing.assert_array_equal(smooth_labels(labels, 0), labels)
    np.testing.assert_allclose(smooth_labels(labels, 1.0), np.full((2, 4), 0.25))
    np.testing.assert_allclose(smooth_labels(labels.T, 0.2, axis=0), smooth_labels(labels, 0.2).T)
    np.testing.assert_allclose(smooth_labels(labels, 0.8, axis=None).sum(), 0.4 + 0.8, rtol=1e-6)
    np.testing.assert_allclose(smooth_labels(labels, 0.2), optax.smooth_labels(labels, 0.2), 1e-6)


def test_smoothing_among_some_classes():
    """The sum stays 1, the classes left out get nothing, and a row of none stays as it is."""
    labels = np.eye(4, dtype=np.float32)[[0, 2, 1]]
    kept = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
    got = smooth_labels(labels, 0.3, where=kept)
    np.testing.assert_allclose(got, [[0.8, 0.1, 0.1, 0], [0.15, 0, 0.85, 0], [0, 1, 0, 0]], 1e-6)
    np.testing.assert_allclose(got.sum(-1), np.ones(3), rtol=1e-6)


def test_smoothing_errors():
    with pytest.raises(TypeError, match="smooth_labels: labels must be floating-point"):
        smooth_labels(np.eye(3, dtype=int), 0.1)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 1.5"):
        smooth_labels(np.eye(3), 1.5)
    with pytest.raises(ValueError, match=r"where of shape \(2, 1, 3\) does not .* \(3, 3\)"):
        smooth_labels(np.eye(3), 0.1, where=np.ones((2, 1, 3), bool))


# ---- Fenchel-Young ----------------------------------------------------------------------------


def test_fenchel_young_of_logsumexp_is_the_cross_entropy():
    p = RELEVANCE / RELEVANCE.sum(-1, keepdims=True)
    loss = make_fenchel_young_loss(jax.nn.logsumexp)
    np.testing.assert_allclose(loss(SCORES, p), softmax_cross_entropy(SCORES, p), rtol=1e-5)
    slope = jax.grad(lambda s: loss(s, p).sum())(SCORES)
    np.testing.assert_allclose(slope, np.exp(log_softmax(SCORES)) - p, atol=1e-6)


def test_fenchel_young_by_hand():
    """Half of the squared norm gives half of the squared distance, less half of `|y|^2`."""
    loss = make_fenchel_young_loss(lambda s, scale: scale * s @ s / 2)
    s, y = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    np.testing.assert_allclose(loss(s, y, 1.0), ((s - y) ** 2).sum() / 2 - (y**2).sum() / 2)
    np.testing.assert_allclose(loss(s, y, scale=3.0), 7.5 - s @ y)
    perceptron = make_fenchel_young_loss(jnp.max)
    np.testing.assert_allclose(perceptron(s, np.array([1.0, 0.0])), 1.0)


def test_fenchel_young_shapes():
    loss = make_fenchel_young_loss(jax.nn.logsumexp)
    theirs = optax.losses.make_fenchel_young_loss(jax.nn.logsumexp)
    stacked = np.stack([SCORES, 2 * SCORES])
    np.testing.assert_allclose(loss(stacked, RELEVANCE), theirs(stacked, RELEVANCE), rtol=1e-5)
    assert loss(SCORES[0], RELEVANCE).shape == (3,)
    assert loss(jnp.array([0.0, -jnp.inf]), jnp.array([1.0, 0.0])) == 0
    for scores, targets in ((SCORES, RELEVANCE[:, :3]), (1.0, 1.0)):
        with pytest.raises(ValueError, match=r"must have the shape \[..., n\], got"):
            loss(scores, targets)
    with pytest.raises(ValueError, match=r"max_fun must return a scalar .* got the shape \(4,\)"):
        make_fenchel_young_loss(jnp.exp)(SCORES, RELEVANCE)
