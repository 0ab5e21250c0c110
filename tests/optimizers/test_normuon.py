"""NorMuon and AdaMuon: what their statistics make equal, and what does not depend on a basis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def walk(tx, gradients):
    state, found = tx.init(gradients[0]), []
    for g in gradients:
        updates, state = tx.update(g, state)
        found.append(np.asarray(updates))
    return found, state


def problem(shape=(6, 4)):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape) * size for size in (1.0, 10.0, 0.1, 3.0)]


@pytest.mark.parametrize("name", ["scale_by_normuon", "scale_by_adamuon"])
def test_the_root_mean_square_is_that_of_adam(name, x64):
    for shape in ((6, 4), (4, 6), (1, 5)):
        for u in walk(getattr(gradtx, name)(), problem(shape))[0]:
            np.testing.assert_allclose(np.sqrt(np.mean(u**2)), 0.2, rtol=1e-12)


def test_outputs_get_equal_steps(x64):
    """At the first step `nu` is the mean square itself."""
    u = walk(gradtx.scale_by_normuon(), problem())[0][0]
    np.testing.assert_allclose(np.mean(u**2, axis=0), 0.04, rtol=1e-6)
    assert np.ptp(np.mean(u**2, axis=1)) > 1e-3


def test_inputs_may_be_turned(x64):
    """Statistics of outputs do not see a rotation of the inputs, whatever the rank."""
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    for gradients in (problem(), [np.outer(g[:, 0], g[0]) for g in problem()]):
        ours = walk(gradtx.scale_by_normuon(), gradients)[0]
        turned = walk(gradtx.scale_by_normuon(), [turn @ g for g in gradients])[0]
        for a, b in zip(ours, turned, strict=True):
            np.testing.assert_allclose(b, turn @ a, atol=1e-10)


def test_zero_gradients_and_an_output_that_is_not_used():
    g = jnp.asarray(problem()[0], jnp.float32).at[:, 1].set(0)
    found, state = walk(gradtx.scale_by_normuon(), [g, 0 * g, g])
    assert all(np.all(np.isfinite(u)) and not np.any(u[:, 1]) for u in found)
    assert state.nu.shape == (1, 4) and state.mu.shape == g.shape
    for name in ("normuon", "adamuon", "mars_muon"):
        tx = getattr(gradtx, name)(0.1, weight_decay=0.0)
        for dtype in ("float32", "bfloat16", "float16"):
            zeros = {"w": jnp.zeros((3, 4), dtype)}
            updates, _ = tx.update(zeros, tx.init(zeros), zeros)
            assert not np.any(np.float32(updates["w"]))


@pytest.mark.parametrize("name", ["normuon", "adamuon", "mars_muon", "dion", "dion2"])
def test_embeddings_and_outputs_are_adamws(name):
    params = {
        "embed": {"embedding": jnp.ones((5, 2))},
        "mlp": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "head": {"kernel": jnp.ones((2, 5))},
    }
    tx = getattr(gradtx, name)(0.1, weight_decay=0.0, of_rest=gradtx.sgd(1.0))
    updates, _ = tx.update(params, tx.init(params), params)
    for leaf in (*updates["embed"].values(), *updates["head"].values(), updates["mlp"]["bias"]):
        np.testing.assert_array_equal(leaf, -1.0)
    assert float(jnp.max(jnp.abs(updates["mlp"]["kernel"]))) < 0.5
    groups = [line.split()[:3] for line in str(gradtx.summary(tx, params)).splitlines()]
    assert ["rest", "3", "23"] in groups and ["matrices", "1", "6"] in groups


@pytest.mark.parametrize("name", ["normuon", "adamuon", "mars_muon"])
def test_one_iteration_a_shape(name):
    params = {f"w{i}": jnp.ones((2 + i % 3, 4)) for i in range(12)}
    tx = getattr(gradtx, name)(0.1)
    text = jax.jit(tx.update).lower(params, tx.init(params), params).as_text()
    assert text.count("stablehlo.dot_general") == 3 * 3  # products of an iteration
