"""Regression losses and cosines against float64 NumPy statements, optax as a second opinion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_program import one_program

from gradtx import losses
from gradtx.losses import (
    cosine_distance,
    cosine_similarity,
    huber_loss,
    l2_loss,
    log_cosh,
    squared_error,
)

# In one program each; without `jit` they are called in test_losses.py.
cosine_distance, cosine_similarity, huber_loss, log_cosh = map(
    one_program, (cosine_distance, cosine_similarity, huber_loss, log_cosh)
)

X = np.array([-200.0, -2.0, -1.0, -0.3, 0.0, 1e-3, 0.5, 1.0, 3.0], np.float32)
Y = np.array([500.0, -2.0, 0.5, 0.3, 0.0, 2e-3, -0.5, 0.0, 2.5], np.float32)


def huber(e, delta):
    e = np.abs(np.asarray(e, np.float64))
    return np.where(e <= delta, e**2 / 2, delta * (e - delta / 2))


def test_squares():
    error = X.astype(float) - Y
    np.testing.assert_allclose(squared_error(X, Y), error**2, rtol=1e-6)
    np.testing.assert_allclose(l2_loss(X, Y), error**2 / 2, rtol=1e-6)
    np.testing.assert_allclose(l2_loss(X), X.astype(float) ** 2 / 2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: l2_loss(x, Y).sum())(X), error, rtol=1e-6)


@pytest.mark.parametrize("delta", [1.0, 0.25, 300])
def test_huber(delta):
    loss = huber_loss(X, Y, delta=delta)
    np.testing.assert_allclose(loss, huber(X.astype(float) - Y, delta), rtol=1e-6)
    np.testing.assert_allclose(loss, optax.losses.huber_loss(X, Y, delta=delta), rtol=1e-6)
    slope = jax.grad(lambda x: huber_loss(x, Y, delta=delta).sum())(X)
    np.testing.assert_allclose(slope, np.clip(X - Y, -delta, delta), rtol=1e-6)
    assert jax.grad(jax.grad(huber_loss))(0.0) == 1  # half of a parabola at the bottom


def test_log_cosh_keeps_its_digits():
    """Where the plain form loses all of them, at small errors, and where it overflows."""
    e = np.array([1e-6, -1e-3, 0.01, 0.5, -0.999, 1.0, 3.0, -20.0], np.float32)
    e64 = e.astype(np.float64)
    want = np.log1p(2 * np.sinh(e64 / 2) ** 2)  # cosh(e) - 1 = 2 sinh(e / 2)^2
    np.testing.assert_allclose(log_cosh(e), want, rtol=2e-6)
    np.testing.assert_allclose(log_cosh(np.float32(-500.0)), 500 - np.log(2), rtol=1e-7)
    np.testing.assert_allclose(log_cosh(np.float32(1e38)), 1e38, rtol=1e-6)
    assert log_cosh(-jnp.inf) == jnp.inf
    slope = jax.grad(lambda x: log_cosh(x).sum())(e)
    np.testing.assert_allclose(slope, np.tanh(e64), rtol=2e-6)
    assert jax.grad(log_cosh)(0.0) == 0
    assert jax.grad(jax.grad(log_cosh))(0.0) == 1
    np.testing.assert_allclose(log_cosh(X, Y), optax.losses.log_cosh(X, Y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["squared_error", "l2_loss", "huber_loss", "log_cosh"])
def test_regression_arguments(name):
    loss = getattr(losses, name)
    np.testing.assert_array_equal(loss(X), loss(X, np.zeros_like(X)))
    with pytest.raises(TypeError, match=rf"{name}: predictions must be floating-point"):
        loss(X.astype(int), Y)
    with pytest.raises(ValueError, match=rf"{name}: predictions of shape \(9, 1\) .*\(9,\)"):
        loss(X[:, None], Y)
    with pytest.raises(ValueError, match="delta must not be negative"):
        huber_loss(X, Y, delta=-1)


def test_what_broadcasts():
    """As in optax: the squares want one shape, the others take one that broadcasts."""
    for loss in (huber_loss, log_cosh):
        np.testing.assert_array_equal(loss(X[None], Y), loss(X, Y)[None])
        np.testing.assert_array_equal(loss(X, 2.0), loss(X, np.full_like(X, 2)))
    with pytest.raises(
        ValueError, match=r"of shape \(9,\) need targets of the same shape, got \(\)"
    ):
        squared_error(X, 2.0)


# ---- Cosines ----------------------------------------------------------------------------------


def cosine(x, y, epsilon=0.0, axis=-1):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    sizes = [np.maximum(np.sqrt((v * v).sum(axis)), epsilon) for v in (x, y)]
    return (x * y).sum(axis) / (sizes[0] * sizes[1])


def vectors(shape=(3, 4, 5)):
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize("axis", [-1, 0, (1, 2), None])
def test_cosine_follows_the_equation(axis):
    x, y = vectors()
    want = cosine(x, y, axis=axis)
    np.testing.assert_allclose(cosine_similarity(x, y, axis=axis), want, atol=1e-6)
    np.testing.assert_allclose(cosine_distance(x, y, axis=axis), 1 - want, atol=1e-6)
    np.testing.assert_allclose(
        cosine_similarity(x, y, axis=axis),
        optax.losses.cosine_similarity(x, y, axis=axis),
        atol=1e-6,
    )


def test_cosine_of_a_vector_of_zeros():
    zero, y = jnp.zeros(3), jnp.array([1.0, 2.0, 2.0])
    assert cosine_similarity(zero, y) == 0
    assert cosine_distance(zero, y) == 1
    assert cosine_distance(zero, zero) == 1
    np.testing.assert_array_equal(jax.grad(cosine_similarity)(zero, y), np.zeros(3))
    np.testing.assert_array_equal(jax.grad(cosine_similarity, 1)(zero, y), np.zeros(3))
    # with a smallest norm there is a slope: <x, y> / (epsilon |y|)
    slope = jax.grad(lambda x: cosine_similarity(x, y, epsilon=0.1))(zero)
    np.testing.assert_allclose(slope, np.array([1, 2, 2]) / 3 / 0.1, rtol=1e-6)


def test_epsilon_is_a_norm():
    """Vectors above it do not notice it; those below are divided by it."""
    x, y = jnp.array([3e-3, 4e-3]), jnp.array([4.0, 3.0])
    np.testing.assert_allclose(cosine_similarity(x, y, epsilon=1e-3), 24 / 25, rtol=1e-6)
    np.testing.assert_allclose(cosine_similarity(x, y, epsilon=0.5), 24e-3 / 0.5 / 5, rtol=1e-6)
    with pytest.raises(ValueError, match="epsilon must not be negative"):
        cosine_similarity(x, y, epsilon=-1.0)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_cosine_depends_on_no_size(size):
    x, y = vectors((4, 6))
    got = cosine_similarity(x * np.float32(size), y)
    np.testing.assert_allclose(got, cosine(x, y), atol=1e-6)
    slope = jax.grad(lambda x: cosine_similarity(x, y).sum())(x * np.float32(size))
    want = jax.grad(lambda x: cosine_similarity(x, y).sum())(x)
    np.testing.assert_allclose(np.asarray(slope, float) * size, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("left_out", [0.0, np.inf, np.nan])
def test_cosine_mask(left_out):
    x, y = vectors((4, 6))
    kept = np.array([True, True, False, True, True, False])
    want = cosine(x[:, kept], y[:, kept])
    x[:, ~kept], y[:, ~kept] = left_out, left_out
    np.testing.assert_allclose(cosine_similarity(x, y, where=kept), want, atol=1e-6)
    slope = jax.grad(lambda x: cosine_distance(x, y, where=kept).sum())(x)
    assert np.isfinite(slope).all() and (slope[:, ~kept] == 0).all()


def test_cosine_of_all_pairs():
    x, y = vectors((4, 6))
    pairs = cosine_similarity(x[:, None], y)
    assert pairs.shape == (4, 4)
    np.testing.assert_allclose(np.diag(pairs), cosine(x, y), atol=1e-6)
    with pytest.raises(ValueError, match=r"predictions of shape \(4, 6\) and targets of .*\(4,\)"):
        cosine_similarity(x, y[:, 0])
