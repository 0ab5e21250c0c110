"""Updates without NaNs, and parameters that do not become negative."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_conformance import walk

import gradtx


def test_nans_become_zero_and_are_noted():
    nan, inf = jnp.nan, jnp.inf
    g = {
        "x": jnp.array([1.0, nan, inf]),
        "clean": [jnp.ones((2, 2)), None],
        "z": jnp.array([complex(nan, 1.0), 2j]),
        "n": jnp.array([1, 2]),
        "half": jnp.array([nan, 1.0], jnp.bfloat16),
    }
    tx = gradtx.zero_nans()
    state = tx.init(g)
    updates, found = tx.update(g, state)
    np.testing.assert_array_equal(updates["x"], [1.0, 0.0, inf])
    np.testing.assert_array_equal(updates["z"], [0, 2j])
    trees.assert_equal((updates["clean"], updates["n"]), (g["clean"], g["n"]))
    noted = {"x": True, "clean": [False, None], "z": True, "n": False, "half": True}
    assert {k: v for k, v in found.found_nan.items() if k != "clean"} == {
        k: v for k, v in noted.items() if k != "clean"
    }
    assert not found.found_nan["clean"][0]
    assert trees.avals(found) == trees.avals(state)
    theirs = optax.zero_nans().update(g, optax.zero_nans().init(g))
    trees.assert_equal((updates, found.found_nan), (theirs[0], theirs[1].found_nan))
    _, found = tx.update({**g, "x": jnp.ones(3)}, found)  # it is the last update's
    assert not found.found_nan["x"]


def test_an_optimizer_behind_it_goes_on():
    tx = gradtx.chain(gradtx.zero_nans(), gradtx.adamw(0.1))
    p = {"w": jnp.ones(2)}
    _, _, params = walk(tx, p, [{"w": jnp.array([jnp.nan, 1.0])}, {"w": jnp.ones(2)}])
    assert np.isfinite(params["w"]).all()


def test_parameters_end_at_zero():
    p = jnp.array([1.0, 1.0, 0.0, -2.0, 1.0])
    g = jnp.array([-3.0, -0.5, -1.0, 1.0, jnp.nan])
    tx = gradtx.keep_params_nonnegative()
    updates, state = tx.update(g, tx.init(p), p)
    np.testing.assert_array_equal(updates, [-1.0, -0.5, 0.0, 2.0, jnp.nan])
    np.testing.assert_array_equal(updates, optax.keep_params_nonnegative().update(g, state, p)[0])


@pytest.mark.parametrize("p_dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("g_dtype", ["float32", "bfloat16", "float16"])
def test_no_rounding_takes_them_below(p_dtype, g_dtype):
    p = {"w": jnp.abs(trees.numbers((500,), 1, p_dtype))}
    g = {"w": trees.numbers((500,), 2, g_dtype)}
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.keep_params_nonnegative())
    _, _, moved = walk(tx, p, [g, g, g])
    assert float(jnp.min(moved["w"])) == 0


def test_nonnegative_least_squares():
    """The known solution of a problem whose bound is active."""
    a, b = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([1.0, -1.0])
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.keep_params_nonnegative())
    x, state = jnp.ones(2), tx.init(jnp.ones(2))
    for _ in range(200):
        updates, state = tx.update(a.T @ (a @ x - b), state, x)
        x = gradtx.apply_updates(x, updates)
    np.testing.assert_allclose(x, [0.2, 0.0], rtol=1e-6)  # x1 = (2 - 1) / (4 + 1)
