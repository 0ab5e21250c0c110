"""Grafting: directions of one method, norms of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def test_each_leaf_has_the_norm_of_the_other_method():
    tx = gradtx.graft(gradtx.scale_by_sign(), gradtx.scale_by_adam())
    g = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([[1.0], [2.0]]), "none": None}
    updates, state = tx.update(g, tx.init(g))
    adam, _ = gradtx.scale_by_adam().update(g, gradtx.scale_by_adam().init(g))
    for name in ("a", "b"):
        np.testing.assert_allclose(
            np.linalg.norm(updates[name]), np.linalg.norm(adam[name]), rtol=1e-6
        )
        np.testing.assert_array_equal(jnp.sign(updates[name]), jnp.sign(g[name]))
    assert int(state.magnitude.count) == 1


def test_directions_of_zero_and_large_norms():
    tx = gradtx.graft(gradtx.identity(), gradtx.scale_by_sign())
    for g, wanted in ((jnp.zeros(2), 0.0), (jnp.full(2, 1e37), 2**0.5)):
        updates, _ = jax.jit(tx.update)(g, tx.init(g))
        np.testing.assert_allclose(np.linalg.norm(updates), wanted, rtol=1e-6)
    half = jnp.array([3.0, 4.0], jnp.bfloat16)
    updates, _ = tx.update(half, tx.init(half))
    assert updates.dtype == jnp.bfloat16


def test_matrices_are_scaled_one_by_one():
    """A stack of layers is scaled as its layers on their own are."""
    rng = np.random.default_rng(0)
    layers = jnp.asarray(rng.normal(size=(3, 4, 5)) * np.array([1, 10, 0])[:, None, None])
    axes = gradtx.MatrixAxes(1, 2)
    pair = gradtx.scale_by_sign(), gradtx.identity()
    whole = gradtx.graft(*pair, weight_dimension_numbers=axes)
    each = gradtx.graft(*pair)
    updates, _ = whole.update(layers, whole.init(layers))
    alone, _ = each.update(list(layers), each.init(list(layers)))
    np.testing.assert_allclose(updates, jnp.stack(alone), rtol=1e-6)
    norms = np.linalg.norm(layers, axis=(1, 2))
    np.testing.assert_allclose(np.linalg.norm(updates, axis=(1, 2)), norms, rtol=1e-6)


def test_a_wrong_axis_is_named():
    tx = gradtx.graft(
        gradtx.identity(), gradtx.identity(), weight_dimension_numbers=gradtx.MatrixAxes(0, 2)
    )
    with pytest.raises(ValueError, match=r"graft: params\['w'\].*weight_dimension_numbers"):
        tx.update({"w": jnp.ones((2, 2))}, tx.init({"w": jnp.ones((2, 2))}))
