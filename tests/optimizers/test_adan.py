"""Adan's weight of gradient differences."""

import jax.numpy as jnp
import numpy as np
import optax
from references import OPTIMIZERS
from test_references import assert_close, make_problem, run

import gradtx


def second_step(module, b2):
    """With gradients 2, 4, and only the difference, 2, in play: no bias is left to correct."""
    tx = module.scale_by_adan(b1=0.0, b2=b2, b3=0.0, eps=0.0)
    return float(run(tx, [jnp.float64(2), jnp.float64(4)], jnp.zeros(()))[1])


def test_differences_are_weighed_by_b2_where_optax_takes_its_complement(x64):
    # v = (1-b2) * 2 after a difference of 0, over 1 - b2**2: 2 / (1+b2)
    def step(weight, b2):
        return (4 + weight * 2 / (1 + b2)) / (4 + weight * 2)

    for b2 in (0.92, 0.75):
        np.testing.assert_allclose(second_step(gradtx, b2), step(b2, b2), rtol=1e-14)
        np.testing.assert_allclose(second_step(optax, b2), step(1 - b2, b2), rtol=1e-14)


def test_optax_agrees_where_the_two_weights_are_one(x64):
    start, gradients = make_problem("adan", np.float64, True)
    settings = {"b1": 0.8, "b2": 0.5, "b3": 0.9, "eps": 1e-2, "eps_root": 1e-3}
    ours = run(gradtx.adan(0.1, **settings, weight_decay=0.1), gradients, start)
    theirs = run(optax.adan(0.1, **settings, weight_decay=0.1), gradients, start)
    assert_close(ours, theirs, 1e-12, OPTIMIZERS["adan"])


def test_a_first_gradient_has_no_difference():
    tx = gradtx.scale_by_adan()
    state = tx.init(jnp.zeros(1))
    assert state.t.dtype == jnp.int32 and int(state.t) == 0
    _, state = tx.update(jnp.array([3.0]), state)
    assert float(state.v[0]) == 0.0 and float(state.g[0]) == 3.0 and int(state.t) == 1
    _, state = tx.update(jnp.array([5.0]), state)
    np.testing.assert_allclose(state.v, [0.08 * 2.0], rtol=1e-6)
