"""Gravity's first velocity; its other equations are compared with the paper in test_references."""

import jax
import jax.numpy as jnp
import numpy as np

import gradtx


def test_the_first_velocity_is_noise_whose_steps_do_not_depend_on_the_rate():
    zeros = {"a": jnp.zeros(20_000), "b": jnp.zeros(20_000)}

    @jax.jit
    def two_steps(rate, key):
        tx = gradtx.gravity(rate, alpha=0.02, beta=0.5, key=key)
        first, state = tx.update(zeros, tx.init(zeros))
        return first, tx.update(zeros, state)[0]

    first, second = two_steps(0.1, jax.random.key(0))
    for name in zeros:  # the decay rate is 1/2 in every step
        np.testing.assert_allclose(jnp.std(first[name]), 0.01, rtol=0.05)
        np.testing.assert_allclose(jnp.mean(first[name]), 0, atol=5 * 0.01 / 20_000**0.5)
        np.testing.assert_allclose(second[name], first[name] / 2, rtol=1e-6)
    assert abs(np.corrcoef(first["a"], first["b"])[0, 1]) < 0.05
    np.testing.assert_allclose(two_steps(0.3, jax.random.key(0))[0]["a"], first["a"], rtol=1e-5)
    assert np.all(two_steps(0.1, jax.random.key(1))[0]["a"] != first["a"])
