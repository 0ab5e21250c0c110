"""Cautious updates: which elements remain, how much larger, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from trees import assert_equal

import gradtx

STEPS = 6


def problem(shape=(3, 4)):
    random = np.random.default_rng(5)
    return [{"w": random.standard_normal(shape), "b": random.standard_normal(3)} for _ in range(7)]


def by_hand(u, g):
    """arXiv:2411.16085: of a direction `u`, with `xi = 1`."""
    phi = u * g > 0
    return u * phi * phi.size / (phi.sum() + 1)


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "sgd"])
def test_finished_updates_are_masked(name, x64):
    more = {"momentum": 0.9} if name == "sgd" else {}
    inner = getattr(gradtx, name)(0.1, **more)
    tx = gradtx.cautious(inner)
    params, *gradients = problem()
    state = inner_state = tx.init(params)
    masked = 0
    for g in gradients:
        updates, state = tx.update(g, state, params)
        whole, inner_state = inner.update(g, inner_state, params)
        for k, u in updates.items():
            np.testing.assert_allclose(u, -by_hand(-np.asarray(whole[k]), g[k]), rtol=1e-12)
            masked += np.sum(np.asarray(u) == 0)
    assert masked > 2
    assert_equal(state, inner_state)


def test_directions_are_masked_before_the_decay(x64):
    """C-AdamW as in the authors' programs."""
    params, *gradients = problem()
    tx = gradtx.chain(
        gradtx.cautious(gradtx.scale_by_adam(), finished=False),
        gradtx.add_decayed_weights(0.1),
        gradtx.scale_by_learning_rate(0.01),
    )
    adam = gradtx.scale_by_adam()
    state, of_adam = tx.init(params), adam.init(params)
    for g in gradients:
        updates, state = tx.update(g, state, params)
        u, of_adam = adam.update(g, of_adam)
        for k in params:
            wanted = -0.01 * (by_hand(np.asarray(u[k]), g[k]) + 0.1 * params[k])
            np.testing.assert_allclose(updates[k], wanted, rtol=1e-12)


def test_all_disagree_and_zero_gradients():
    tx = gradtx.cautious(gradtx.scale(1.0))  # ascends
    g = jnp.array([1.0, -2.0])
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], [0, 0])
    tx = gradtx.cautious(gradtx.sgd(0.1))
    np.testing.assert_array_equal(tx.update(0 * g, tx.init(g))[0], [0, 0])


def test_products_that_vanish_still_agree():
    for dtype in ("float32", "bfloat16", "float16"):
        g = jnp.full(4, 1e-4, dtype)
        tx = gradtx.cautious(gradtx.sgd(1e-2))
        updates, _ = tx.update(g, tx.init(g))
        assert updates.dtype == dtype
        np.testing.assert_allclose(np.float32(updates), -1e-6 * 4 / 5, rtol=0.1)


def test_complex_updates_agree_by_their_real_inner_product(x64):
    g = jnp.array([1.0 + 1.0j, 1.0 - 1.0j])
    inner = gradtx.stateless(lambda u, p: jnp.array([-1.0 + 0.5j, 0.5 - 1.0j]))
    tx = gradtx.cautious(inner)
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], [-1.0 + 0.5j, 0])


def test_what_is_not_finite_is_not_hidden():
    g = jnp.array([1.0, jnp.nan])
    tx = gradtx.cautious(gradtx.sgd(0.1))
    assert bool(jnp.isnan(tx.update(g, tx.init(g))[0][1]))


def test_under_jit_with_masked_and_missing_leaves():
    params = {"w": trees.numbers((3, 4), 1), "none": None, "b": trees.numbers((3,), 2)}
    tx = gradtx.cautious(gradtx.muon(0.1))
    state = tx.init(params)
    eager, _ = tx.update(params, state, params)
    jitted, new = jax.jit(tx.update)(params, state, params)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), eager, jitted)
    assert gradtx.cautious(gradtx.adamw(0.1)) == gradtx.cautious(gradtx.adamw(0.1))
    inside = gradtx.masked(
        gradtx.cautious(gradtx.adam(0.1)), {"w": True, "none": False, "b": False}
    )
    updates, _ = inside.update(params, inside.init(params), params)
    assert_equal(updates["b"], params["b"])
