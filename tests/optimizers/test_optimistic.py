"""Optimistic methods: what they are good for, and how the forms of optimistic Adam relate."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references import OPTIMIZERS
from test_conformance import walk
from test_references import assert_close, make_problem, run
from trees import assert_equal

import gradtx


def distance_after_play(tx, rounds=1000):
    """How far from the equilibrium at 0 the players of `min_x max_y x * y` end up."""

    @jax.jit
    def play(players):
        def turn(carry, _):
            players, state = carry
            g = {"x": players["y"], "y": -players["x"]}  # each descends on a loss of its own
            updates, state = tx.update(g, state, players)
            return (gradtx.apply_updates(players, updates), state), None

        return jax.lax.scan(turn, (players, tx.init(players)), length=rounds)[0][0]

    ended = play({"x": jnp.float32(1), "y": jnp.float32(1)})
    return float(jnp.hypot(ended["x"], ended["y"]))


def test_optimism_finds_the_equilibrium_that_plain_descent_circles_away_from():
    assert distance_after_play(gradtx.sgd(0.1)) > 10
    assert distance_after_play(gradtx.optimistic_gradient_descent(0.1)) < 0.05
    assert distance_after_play(gradtx.optimistic_gradient_descent(0.1, beta=0.0)) > 10


def test_the_state_knows_whether_a_step_was_taken():
    tx = gradtx.scale_by_optimistic_gradient()
    state = tx.init(jnp.zeros(1))
    assert state.is_initial_step.dtype == jnp.bool_ and bool(state.is_initial_step)
    updates, state = tx.update(jnp.array([2.0]), state)
    assert not bool(state.is_initial_step) and float(updates[0]) == 2.0
    updates, state = tx.update(jnp.array([5.0]), state)
    assert not bool(state.is_initial_step) and float(updates[0]) == 8.0


@pytest.mark.parametrize("optimism", [None, 0.03])
@pytest.mark.parametrize("nesterov", [True, False])
def test_optax_agrees_on_the_older_form(optimism, nesterov, x64):
    start, gradients = make_problem("optimistic", np.float64, True)
    settings = {"optimism": optimism, "nesterov": nesterov}
    ours = run(gradtx.optimistic_adam(0.1, **settings), gradients, start)
    theirs = run(optax.optimistic_adam(0.1, **settings), gradients, start)
    assert_close(ours, theirs, 1e-12, OPTIMIZERS["optimistic_adam"])


def test_the_older_form_is_the_newer_one():
    g = jnp.array([1.0, -3.0])
    default = walk(gradtx.optimistic_adam(0.1), g, [g, -g])
    assert_equal(default, walk(gradtx.optimistic_adam_v2(0.1), g, [g, -g]))
    assert_equal(default, walk(gradtx.optimistic_adam(0.1, 0.1), g, [g, -g]))


def test_the_older_form_says_so():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradtx.optimistic_adam(0.1)
    (warning,) = caught
    assert warning.category is DeprecationWarning and warning.filename == __file__
    assert "use `optimistic_adam_v2` instead" in str(warning.message)


def test_what_the_older_form_refuses():
    with pytest.raises(TypeError, match=r"optimistic_adam: .*schedule.*optimistic_adam_v2"):
        gradtx.optimistic_adam(lambda count: 0.1)
    with pytest.raises(ValueError, match=r"optimistic_adam: learning_rate is 0, .*optimism is 0.1"):
        gradtx.optimistic_adam(0.0, 0.1)
    assert not np.any(walk(gradtx.optimistic_adam(0.0), jnp.ones(2), [jnp.ones(2)])[0])
