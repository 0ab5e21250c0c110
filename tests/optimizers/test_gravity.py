"""Gravity's first velocity; its other equations are compared with the paper in test_references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import assert_ulps, avals

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


PARAMS = {"a": jnp.zeros((30, 40)), "b": jnp.zeros((30, 40)), "h": jnp.zeros(500, jnp.bfloat16)}


def test_the_first_velocity_is_drawn_in_init_for_the_rate_of_step_0():
    rates = {
        "number": 0.1,
        "array": jnp.float32(0.1),
        "schedule": gradtx.linear_schedule(0.1, 1.0, 10),
        "function": lambda count: 0.1 * 2.0**count,
    }
    wanted = gradtx.gravity(0.1, alpha=0.02, key=5).init(PARAMS)
    for name, x in wanted.velocity.items():
        np.testing.assert_allclose(jnp.std(x), 0.2, rtol=0.1, err_msg=name)
    for name, rate in rates.items():
        tx = gradtx.gravity(rate, alpha=0.02, key=5)
        found = tx.init(PARAMS)
        assert avals(found) == avals(wanted) == avals(jax.eval_shape(tx.init, PARAMS)), name
        assert_ulps(found, wanted)
        assert_ulps(jax.jit(tx.init)(PARAMS), wanted)
    again = gradtx.gravity(0.1, alpha=0.02, key=jax.random.key(5)).init(PARAMS)
    assert_ulps(again, wanted)
    # Without `jit`, a schedule may be any Python function.
    python = gradtx.gravity(lambda count: float(0.1 * jnp.exp(0.0 * count)), alpha=0.02, key=5)
    assert_ulps(python.init(PARAMS), wanted)
    # At a rate of 0, a step is no noise, but its size is defined.
    still = gradtx.gravity(0.0, alpha=0.02, key=5).init(PARAMS)
    np.testing.assert_allclose(still.velocity["a"], wanted.velocity["a"] * 0.1, rtol=1e-6)


def test_a_rate_of_the_call_does_not_change_what_was_drawn():
    tx = gradtx.gravity(0.1, alpha=0.02, beta=0.5)
    state = tx.init(PARAMS)
    updates, new = tx.update(PARAMS, state, learning_rate=0.3)
    for name, u in updates.items():
        np.testing.assert_allclose(
            u.astype(np.float32), -0.15 * state.velocity[name], rtol=5e-3, err_msg=name
        )
    assert float(new.learning_rate) == pytest.approx(0.3)


def test_many_keys_at_once():
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.vmap(lambda key: gradtx.gravity(0.1, key=key).init(PARAMS).velocity)(keys)
    for i, key in enumerate(keys):
        own = gradtx.gravity(0.1, key=key).init(PARAMS).velocity
        assert_ulps(jax.tree.map(lambda x, i=i: x[i], found), own)
