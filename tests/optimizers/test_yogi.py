"""Yogi's second moment, and where its first one starts."""

import jax.numpy as jnp
import numpy as np
import optax
from test_conformance import walk
from test_references import assert_close, make_problem, run

import gradtx


def test_the_second_moment_falls_by_small_steps_only():
    tx = gradtx.scale_by_yogi(b2=0.9, initial_accumulator_value=100.0)
    state = tx.init(jnp.zeros(3))
    _, state = tx.update(jnp.array([1.0, 20.0, 10.0]), state)
    # below 100 it falls by a tenth of 1, above it grows by a tenth of 400, at 100 it stays
    np.testing.assert_allclose(state.nu, [99.9, 140.0, 100.0], rtol=1e-6)


def test_nothing_moves_without_gradients_where_optax_does():
    zero = jnp.zeros(2)
    assert not np.any(walk(gradtx.yogi(0.1), zero, [zero] * 3)[2])
    assert np.all(np.asarray(walk(optax.yogi(0.1), zero, [zero] * 3)[2]) < -1e-5)


def test_optax_agrees_where_its_first_moment_starts_at_zero(x64):
    start, gradients = make_problem("yogi", np.float64, True)
    settings = {"b1": 0.8, "b2": 0.97, "eps": 1e-2, "eps_root": 1e-3}
    ours = gradtx.scale_by_yogi(**settings, initial_accumulator_value=0.0)
    theirs = optax.scale_by_yogi(**settings, initial_accumulator_value=0.0)
    assert_close(run(ours, gradients, start), run(theirs, gradients, start), 1e-12)


def test_moments_that_overflow_do_not_spoil_what_follows():
    tx, huge = gradtx.scale_by_yogi(b2=0.0), jnp.full(1, 1e30)
    updates, state, _ = walk(tx, huge, [huge, huge, jnp.ones(1)])
    assert np.isinf(state.nu) and np.all(updates == 0)
