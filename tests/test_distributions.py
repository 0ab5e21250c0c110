"""The normal distribution that gradients are taken through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import gradtx

LOC, LOG_SCALE = jnp.array([[1.0, -2.0, 0.5]]), jnp.array([[0.3], [-1.0]])


def test_log_prob_is_scipys():
    normal = gradtx.multi_normal(LOC, LOG_SCALE)
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    wanted = stats.norm.logpdf(x, np.asarray(LOC), np.exp(np.asarray(LOG_SCALE))).sum((-1, -2))
    np.testing.assert_allclose(normal.log_prob(x), wanted, rtol=1e-4)
    np.testing.assert_array_equal(normal.params[0], LOC)
    np.testing.assert_array_equal(normal.log_scale, normal.params[1])


def test_samples_have_the_moments():
    samples = gradtx.multi_normal(LOC, LOG_SCALE).sample([200, 100], jax.random.key(0))
    assert samples.shape == (200, 100, 2, 3)
    mean, scale = jnp.mean(samples, (0, 1)), jnp.std(samples, (0, 1))
    np.testing.assert_allclose(mean, np.broadcast_to(LOC, (2, 3)), atol=5 * 1.35 / 20000**0.5)
    np.testing.assert_allclose(scale, np.broadcast_to(np.exp(LOG_SCALE), (2, 3)), rtol=0.03)


def test_gradients_flow_through_samples():
    def f(loc, log_scale):
        return jnp.mean(
            gradtx.multi_normal(loc, log_scale).sample((20000,), jax.random.key(0)) ** 2
        )

    d_loc, d_log_scale = jax.grad(f, (0, 1))(1.5, 0.0)  # of loc**2 + exp(log_scale)**2
    np.testing.assert_allclose([d_loc, d_log_scale], [3.0, 2.0], atol=0.1)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match="broadcast"):
        gradtx.multi_normal(jnp.ones(2), jnp.ones(3))
