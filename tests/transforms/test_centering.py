"""Gradient centralization."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees

import gradtx


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 3, 4, 5), (1, 3)], ids=str)
@pytest.mark.parametrize("output_axis", [0, -1, 1])
def test_units_have_no_mean(shape, output_axis, x64):
    g = trees.numbers(shape, 1, jnp.float64)
    tx = gradtx.centralize(output_axis=output_axis)
    ours, _ = tx.update(g, tx.init(g))
    units = np.moveaxis(np.asarray(g), output_axis, 0).reshape(shape[output_axis], -1)
    exact = units - units.mean(axis=1, keepdims=True)
    ours = np.moveaxis(np.asarray(ours), output_axis, 0).reshape(units.shape)
    np.testing.assert_allclose(ours, exact, rtol=1e-12, atol=1e-14)


def test_optax_agrees(x64):
    g = {"w": trees.numbers((3, 4), 1), "k": trees.numbers((2, 3, 4, 5), 2), "b": jnp.ones(3)}
    ours, _ = gradtx.centralize().update(g, gradtx.EmptyState())
    theirs, _ = optax.centralize().update(g, optax.EmptyState())
    trees.assert_ulps(ours, theirs, 4, of_largest=True)


def test_scalars_and_vectors_pass_by():
    for shape in ((), (3,)):
        g = trees.numbers(shape, 1)
        trees.assert_equal(gradtx.centralize().update(g, gradtx.EmptyState())[0], g)


def test_half_precision_is_added_in_float32():
    g = jnp.full((1000, 1), 300, jnp.float16).at[0].set(301)
    ours, _ = gradtx.centralize(output_axis=-1).update(g, gradtx.EmptyState())
    exact = np.asarray(g, np.float64) - np.mean(np.asarray(g, np.float64))
    np.testing.assert_allclose(np.asarray(ours, np.float64), exact, rtol=2e-2)
