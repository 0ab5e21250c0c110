"""Losses of logits against float64 NumPy statements, and optax as a second opinion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_program import one_program
from representatives import moved_one_by_one

from gradtx import check_gradients
from gradtx.losses import sigmoid_binary_cross_entropy, sigmoid_focal_loss

# In one program each; without `jit` they are called in test_losses.py.
sigmoid_binary_cross_entropy, sigmoid_focal_loss, optax_focal = map(
    one_program, (sigmoid_binary_cross_entropy, sigmoid_focal_loss, optax.losses.sigmoid_focal_loss)
)

Z = np.array([-30.0, -3.0, -0.5, 0.0, 0.25, 2.0, 30.0], np.float32)
SOFT = np.array([0.1, 0.0, 1.0, 0.3, 0.5, 1.0, 0.0], np.float32)


def cross_entropy(z, y):
    z, y = np.asarray(z, np.float64), np.asarray(y, np.float64)
    return y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)


def focal(z, y, alpha, gamma):
    z, y = np.asarray(z, np.float64), np.asarray(y, np.float64)
    p = 1 / (1 + np.exp(-z))
    right = p * y + (1 - p) * (1 - y)
    weight = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
    return weight * (1 - right) ** gamma * cross_entropy(z, y)


def test_cross_entropy_follows_the_equation():
    np.testing.assert_allclose(
        sigmoid_binary_cross_entropy(Z, SOFT), cross_entropy(Z, SOFT), rtol=1e-6
    )
    slope = jax.grad(lambda z: sigmoid_binary_cross_entropy(z, SOFT).sum())(Z)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-Z.astype(float))) - SOFT, atol=1e-7)
    slope = jax.grad(lambda y: sigmoid_binary_cross_entropy(Z, y).sum())(SOFT)
    np.testing.assert_allclose(slope, -Z, atol=1e-6)  # also at 0 and 1


def test_cross_entropy_at_infinity():
    z = np.array([np.inf, -np.inf, np.inf, -np.inf], np.float32)
    y = np.array([1, 0, 0, 1])
    np.testing.assert_array_equal(sigmoid_binary_cross_entropy(z, y), [0, 0, np.inf, np.inf])
    slope = jax.grad(lambda z: sigmoid_binary_cross_entropy(z, y[:2]).sum())(z[:2])
    np.testing.assert_array_equal(slope, [0, 0])


@pytest.mark.parametrize(
    ("alpha", "gamma"), list(moved_one_by_one([0.25, None, 0, 1], [2, 0, 0.5, 1.0, 3.5]))
)
def test_focal_loss_follows_the_equation(alpha, gamma):
    z, y = Z[1:-1], SOFT[1:-1]
    loss = sigmoid_focal_loss(z, y, alpha=alpha, gamma=gamma)
    np.testing.assert_allclose(loss, focal(z, y, alpha, gamma), rtol=2e-6)
    np.testing.assert_allclose(loss, optax_focal(z, y, alpha=alpha, gamma=gamma), rtol=5e-5)


def test_focal_loss_of_hard_labels_by_hand():
    """A logit of 0 is half right: `0.5^2 log(2)`."""
    np.testing.assert_allclose(sigmoid_focal_loss(0.0, 1), 0.25 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(sigmoid_focal_loss(0.0, 0, alpha=0.1), 0.9 * 0.25 * np.log(2), 1e-6)


def test_focal_gradients():
    z, y = jnp.array([-3.0, -0.5, 0.0, 0.25, 2.0]), jnp.array([0.0, 1.0, 0.3, 0.5, 1.0])
    for gamma in (0.5, 2.0):
        check_gradients(
            lambda z, y, g: sigmoid_focal_loss(z, y, alpha=0.3, gamma=g).sum(),
            z,
            y,
            jnp.array(gamma),
            argnums=(0, 1, 2),
            show=False,
        ).raise_if_bad()


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0, 0.1, 0.5, 1.0, 1.5, 2, 5.0])
def test_extreme_logits_have_finite_slopes_and_curvatures(gamma):
    z = np.array([-np.inf, -1e30, -1e3, -100, -60, 60, 100, 1e3, 1e30, np.inf], np.float32)
    for y in (z > 0, np.full(z.shape, 0.3, np.float32)):
        finite = slice(None) if y.dtype == bool else slice(1, -1)

        def loss(z, y=y[finite]):
            return sigmoid_focal_loss(z, y, gamma=gamma).sum()

        for f in (loss, jax.grad(loss), jax.hessian(loss)):
            assert np.isfinite(f(z[finite])).all()
    np.testing.assert_allclose(
        sigmoid_focal_loss(z, z > 0, gamma=gamma), 0 * np.isfinite(z), 0, 1e-25
    )


@pytest.mark.parametrize("loss", [sigmoid_binary_cross_entropy, sigmoid_focal_loss])
def test_shapes(loss):
    assert loss(np.ones((4, 3)), np.ones(3)).shape == (4, 3)
    assert loss(np.ones((4, 1)), np.ones((1, 3))).shape == (4, 3)
    with pytest.raises(ValueError, match=r"logits of shape \(4, 1\) and labels of shape \(4,\)"):
        loss(np.ones((4, 1)), np.ones(4))
    with pytest.raises(ValueError, match=r"\(4,\) and labels of shape \(3,\) do not broadcast"):
        loss(np.ones(4), np.ones(3))
    with pytest.raises(TypeError, match="logits must be floating"):
        loss(np.ones(4, int), np.ones(4))
