"""Hessian products and diagonals against Hessians written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gradtx import second_order

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3.0, -1.0]])}
INPUTS, TARGETS = jnp.array([0.5, -2.0]), 3.0


def loss(p, x, y):
    return jnp.sum(jnp.sin(p["a"]) * x) + y * jnp.sum(p["b"] ** 3) + p["a"][0] * p["b"][0, 1]


def hessian():
    """By hand, in the order a0, a1, b0, b1."""
    a, b = np.array([1.0, 2.0]), np.array([3.0, -1.0])
    h = np.diag([*(-np.sin(a) * np.asarray(INPUTS)), *(TARGETS * 6 * b)])
    h[0, 3] = h[3, 0] = 1
    return h


@pytest.mark.parametrize("v", [[1, 0, 0, 0], [0.5, -1, 2, 3]])
def test_hvp(v):
    got = jax.jit(lambda v: second_order.hvp(loss, v, PARAMS, INPUTS, TARGETS))(jnp.array(v))
    np.testing.assert_allclose(got, hessian() @ v, rtol=1e-6, atol=1e-6)


def test_hessian_diag():
    got = second_order.hessian_diag(loss, PARAMS, INPUTS, TARGETS)
    np.testing.assert_allclose(got, np.diag(hessian()), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 128, 300])
def test_hessian_diag_of_more_parameters_than_it_takes_at_once(n):
    p = jnp.linspace(-1, 1, n)
    got = second_order.hessian_diag(lambda p, x, y: jnp.sum(p**4) + p[0] * p[-1], p, None, None)
    want = 12 * np.asarray(p, np.float64) ** 2 + (2 if n == 1 else 0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_hessian_diag_does_not_hold_the_hessian():
    n = 20_000
    compiled = (
        jax.jit(lambda p: second_order.hessian_diag(lambda p, x, y: jnp.sum(p**3), p, 0, 0))
        .lower(jnp.ones(n))
        .compile()
    )
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * n * n / 10


def test_fisher_diag():
    got = second_order.fisher_diag(loss, PARAMS, INPUTS, TARGETS)
    gradient, _ = ravel_pytree(jax.grad(loss)(PARAMS, INPUTS, TARGETS))
    a = np.cos(np.array([1.0, 2.0])) * np.asarray(INPUTS) + np.array([-1.0, 0])
    b = TARGETS * 3 * np.array([9.0, 1]) + np.array([0, 1.0])
    np.testing.assert_allclose(gradient, [*a, *b], rtol=1e-6)
    np.testing.assert_allclose(got, np.array([*a, *b]) ** 2, rtol=1e-6)


def test_fisher_diag_of_a_batch_is_the_mean_of_squares():
    """The information of a Gaussian's mean is 1, whatever the mean gradient is."""
    x = jax.random.normal(jax.random.key(0), (20_000,))

    def nll(mean, x, y):
        return 0.5 * (x - mean) ** 2

    each = jax.vmap(second_order.fisher_diag, (None, None, 0, None))(nll, jnp.array(0.0), x, None)
    np.testing.assert_allclose(each.mean(), 1, atol=0.05)


def test_what_is_rejected():
    with pytest.raises(ValueError, match=r"hvp.*4 elements.*\(3,\)"):
        second_order.hvp(loss, jnp.ones(3), PARAMS, INPUTS, TARGETS)
