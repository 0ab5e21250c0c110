"""Lion's ways to bound a step."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_conformance import walk
from test_references import assert_close, make_problem, run

import gradtx

MODES = ("hard", "smooth", "refined")


@pytest.mark.parametrize("mode", MODES)
def test_no_element_moves_by_more_than_one(mode):
    tx = gradtx.scale_by_lion(b1=0.0, mode=mode, smooth_beta=2.0)
    for dtype in (jnp.float32, jnp.float16, jnp.complex64):
        g = trees.numbers((50,), 1, dtype) * 10.0 ** jnp.linspace(-3, 3, 50).astype(dtype)
        updates, _, _ = walk(tx, g, [g])
        size, wanted = np.abs(np.asarray(updates, np.complex128)), np.abs(np.asarray(g))
        assert np.max(size) <= 1 + 1e-6
        expected = {
            "hard": np.ones_like(wanted),
            "smooth": np.tanh(2 * wanted.astype(float)),
            "refined": np.minimum(wanted, 1),
        }[mode]
        np.testing.assert_allclose(size, expected, rtol=3 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("mode", MODES)
def test_complex_updates_turn_with_their_gradients(mode, x64):
    """Whichever direction of the plane is called real."""
    z, turn = trees.numbers((5,), 3, complex) * jnp.array([0.1, 0.5, 1.0, 2.0, 9.0]), np.exp(1j)
    tx = gradtx.scale_by_lion(mode=mode)
    plain, _, _ = walk(tx, z, [z, z])
    turned, _, _ = walk(tx, z * turn, [z * turn, z * turn])
    np.testing.assert_allclose(turned, turn * plain, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_optax_agrees_on_the_modes(mode, x64):
    settings = {"b1": 0.7, "b2": 0.8, "mode": mode, "smooth_beta": 0.3}
    start, gradients = make_problem("lion", np.float64, False)
    ours = run(gradtx.scale_by_lion(**settings), gradients, start)
    assert_close(ours, run(optax.scale_by_lion(**settings), gradients, start), 1e-12)


def test_refuses_modes_that_it_does_not_know():
    tx = gradtx.scale_by_lion(mode="soft")
    with pytest.raises(ValueError, match=r"scale_by_lion: .*mode must .*'smooth', .*got 'soft'"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
