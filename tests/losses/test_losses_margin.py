"""Margin losses and sparsemax against float64 NumPy statements, optax as a second opinion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_program import one_program

from gradtx import losses
from gradtx.losses import (
    hinge_loss,
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    multiclass_sparsemax_loss,
    perceptron_loss,
    sparsemax_loss,
)

# In one program each; without `jit` they are called in test_losses.py.
hinge_loss, perceptron_loss, sparsemax_loss = map(
    one_program, (hinge_loss, perceptron_loss, sparsemax_loss)
)
multiclass_hinge_loss, multiclass_perceptron_loss, multiclass_sparsemax_loss = map(
    one_program, (multiclass_hinge_loss, multiclass_perceptron_loss, multiclass_sparsemax_loss)
)
MULTICLASS = [multiclass_hinge_loss, multiclass_perceptron_loss, multiclass_sparsemax_loss]
by_name = pytest.mark.parametrize("loss", MULTICLASS, ids=lambda f: f.__name__)


def simplex_by_bisection(s):
    """The projection onto the simplex: `max(s - tau, 0)` for the tau at which it sums to 1."""
    s = np.asarray(s, np.float64)
    low, high = s.max() - 1, s.max()
    for _ in range(200):
        tau = (low + high) / 2
        low, high = (tau, high) if np.maximum(s - tau, 0).sum() > 1 else (low, tau)
    return np.maximum(s - (low + high) / 2, 0)


def by_hand(loss, s, y):
    s = np.asarray(s, np.float64)
    if loss is multiclass_sparsemax_loss:
        p = simplex_by_bisection(s)
        # the largest value of <p, s> - |p|^2 / 2 on the simplex, less that at the label
        return (p @ s - p @ p / 2) - (s[y] - 0.5)
    margin = 1 if loss is multiclass_hinge_loss else 0
    return max(s[k] + margin * (k != y) for k in range(len(s))) - s[y]


@pytest.fixture
def scores():
    return np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)


@pytest.fixture
def classes():
    return np.random.default_rng(1).integers(5, size=40)


def test_binary_losses_by_hand():
    s, y = np.array([0.5, 3.0, 2.0, -0.25], np.float32), np.array([1, 1, -1, -1])
    np.testing.assert_array_equal(hinge_loss(s, y), [0.5, 0, 3, 0.75])
    np.testing.assert_array_equal(perceptron_loss(s, y), [0, 0, 2, 0])
    np.testing.assert_array_equal(jax.grad(lambda s: hinge_loss(s, y).sum())(s), [-1, 0, 1, 1])
    np.testing.assert_array_equal(jax.grad(lambda s: perceptron_loss(s, y).sum())(s), [0, 0, 1, 0])


@pytest.mark.slow
def test_binary_sparsemax_by_hand():
    z = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], np.float32)
    np.testing.assert_allclose(sparsemax_loss(z, 1), [2, 1, 0.5625, 0.25, 0.0625, 0, 0])
    np.testing.assert_allclose(sparsemax_loss(z, 0), [0, 0, 0.0625, 0.25, 0.5625, 1, 2])
    for y in (0, 1):
        slope = jax.grad(lambda z, y=y: sparsemax_loss(z, y).sum())(z)
        np.testing.assert_allclose(slope, np.clip((z + 1) / 2, 0, 1) - y, atol=1e-7)


@pytest.mark.parametrize("y", [0.0, 0.2, 0.5, 1.0])
def test_binary_sparsemax_is_the_loss_of_two_classes(y):
    """With scores `(z, 0)` and the label `(y, 1 - y)`; and 0 where the sparse sigmoid is `y`."""
    label = np.array([y, 1 - y])
    for z in np.linspace(-2, 2, 9):
        s = np.array([z, 0.0])
        p = simplex_by_bisection(s)
        want = (p @ s - p @ p / 2) - (label @ s - label @ label / 2)
        np.testing.assert_allclose(sparsemax_loss(np.float32(z), y), want, atol=2e-7)
    np.testing.assert_allclose(sparsemax_loss(2 * y - 1, y), 0, atol=1e-7)


def test_binary_sparsemax_far_out():
    z = np.array([np.inf, -np.inf, 1e30, -1e30], np.float32)
    np.testing.assert_array_equal(sparsemax_loss(z, z > 0), np.zeros(4))
    np.testing.assert_array_equal(sparsemax_loss(z, z < 0), np.abs(z))


@by_name
def test_multiclass_follows_the_equation(loss, scores, classes):
    want = [by_hand(loss, s, y) for s, y in zip(scores, classes, strict=True)]
    np.testing.assert_allclose(loss(scores, classes), want, rtol=1e-5, atol=1e-6)
    theirs = one_program(getattr(optax.losses, loss.__name__))(scores, classes)
    np.testing.assert_allclose(loss(scores, classes), theirs, rtol=1e-5, atol=1e-6)
    assert (np.asarray(loss(scores, classes)) >= -1e-7).all()


def test_multiclass_gradients(scores, classes):
    """The leading class, or the projection, less one at the label."""
    label = np.eye(5)[classes]
    for loss, margin in ((multiclass_hinge_loss, 1), (multiclass_perceptron_loss, 0)):
        leading = np.eye(5)[(scores + margin * (1 - label)).argmax(-1)]
        slope = jax.grad(lambda s, f=loss: f(s, classes).sum())(scores)
        np.testing.assert_array_equal(slope, leading - label)
    slope = jax.grad(lambda s: multiclass_sparsemax_loss(s, classes).sum())(scores)
    want = np.stack([simplex_by_bisection(s) for s in scores]) - label
    np.testing.assert_allclose(slope, want, atol=1e-6)
    p = simplex_by_bisection(scores[0])
    support = (p > 0).astype(float)
    curvature = jax.hessian(lambda s: multiclass_sparsemax_loss(s, 1))(scores[0])
    want = np.diag(support) - np.outer(support, support) / support.sum()
    np.testing.assert_allclose(curvature, want, atol=1e-6)


@by_name
def test_multiclass_large_scores_keep_their_differences(loss):
    s = np.array([1e6, 1e6 - 0.5, 1e6 - 4], np.float32)
    for y in range(3):
        np.testing.assert_allclose(loss(s, y), by_hand(loss, s, y), atol=1e-6)
    s = np.array([0.0, -1e30, 1e30], np.float32)
    np.testing.assert_allclose(loss(s, 2), 0, atol=1e-6)
    np.testing.assert_allclose(loss(s, 0), 1e30, rtol=1e-6)


@by_name
def test_multiclass_impossible_classes(loss):
    s = np.array([0.3, -np.inf, 0.1], np.float32)
    np.testing.assert_allclose(loss(s, 2), by_hand(loss, s[[0, 2]], 1), atol=1e-6)
    assert loss(s, 1) == np.inf
    assert np.isfinite(jax.grad(loss)(s, 2)).all()


def test_ties_share_the_gradient():
    s = jnp.array([1.0, 1.0, 0.0])
    np.testing.assert_array_equal(jax.grad(multiclass_perceptron_loss)(s, 2), [0.5, 0.5, -1])
    np.testing.assert_array_equal(jax.grad(multiclass_perceptron_loss)(s, 0), [-0.5, 0.5, 0])
    np.testing.assert_allclose(jax.grad(multiclass_sparsemax_loss)(s, 0), [-0.5, 0.5, 0], atol=1e-7)


@by_name
def test_multiclass_shapes_and_labels(loss, scores, classes):
    np.testing.assert_array_equal(
        loss(scores.reshape(4, 10, 5), classes.reshape(4, 10)).ravel(), loss(scores, classes)
    )
    assert loss(scores, 1).shape == (40,)
    assert loss(scores[0], 1).shape == ()
    for no_class in (5, -1, -6):
        assert np.isnan(loss(scores[0], no_class))
    with pytest.raises(TypeError, match=rf"{loss.__name__}: labels must be integers, not float"):
        loss(scores, np.ones(40))
    with pytest.raises(ValueError, match=r"\(40, 5\) need labels of shape \(40,\), got \(40, 1\)"):
        loss(scores, classes[:, None])
    with pytest.raises(ValueError, match="have no classes"):
        loss(1.0, 1)


@pytest.mark.parametrize("name", ["hinge_loss", "perceptron_loss", "sparsemax_loss"])
def test_binary_shapes(name):
    loss = getattr(losses, name)
    assert loss(np.ones((4, 3)), 1.0).shape == (4, 3)
    assert loss(np.array([1, 0]), np.array([1, 1])).dtype == jnp.float32
    with pytest.raises(
        ValueError, match=rf"{name}: .* \(4, 1\) and .* \(4,\) would give .* \(4, 4\)"
    ):
        loss(np.ones((4, 1)), np.ones(4))
    with pytest.raises(TypeError, match=rf"{name}: .* must be real, not complex"):
        loss(np.ones(4) * 1j, np.ones(4))
