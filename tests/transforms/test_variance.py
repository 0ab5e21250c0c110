"""MARS: the corrected gradient, its limit, and its first step."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from references.mars import corrected

import gradtx


def run(tx, gradients):
    state, found = tx.init(gradients[0]), []
    for g in gradients:
        updates, state = tx.update(g, state)
        found.append(updates)
    return found


@pytest.mark.parametrize(
    ("gamma", "b1", "max_norm"), [(0.025, 0.95, 1.0), (0.3, 0.5, math.inf), (0.0, 0.9, 0.5)]
)
def test_against_the_paper(gamma, b1, max_norm, x64):
    random = np.random.default_rng(2)
    gradients = [random.standard_normal((3, 4)) * size for size in (1.0, 0.1, 3.0, 0.01)]
    found = run(gradtx.mars(gamma, b1, max_norm), gradients)
    for u, w in zip(found, corrected(gradients, gamma, b1, max_norm), strict=True):
        np.testing.assert_allclose(u, w, rtol=1e-12)


def test_a_gradient_that_is_not_finite_is_forgotten():
    gradients = [jnp.ones(2), jnp.array([jnp.nan, 1.0]), jnp.ones(2), jnp.ones(2) / 2]
    found = run(gradtx.mars(max_norm=math.inf), gradients)
    assert [bool(jnp.all(jnp.isfinite(u))) for u in found] == [True, False, False, True]


def test_zero_and_half_precision():
    for dtype in ("float32", "bfloat16", "float16"):
        zero = jnp.zeros(3, dtype)
        for u in run(gradtx.mars(), [zero, zero]):
            assert u.dtype == dtype
            np.testing.assert_array_equal(np.float32(u), 0)
        large = jnp.full(3, 3e4, dtype)  # whose square is not a number of float16
        np.testing.assert_allclose(np.float32(run(gradtx.mars(), [large])[0]), 3**-0.5, rtol=1e-2)


def test_before_any_optimizer_with_momentum():
    tx = gradtx.chain(gradtx.mars(b1=0.9), gradtx.adamw(0.1, b1=0.9))
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params)
    assert state[0].last["w"].shape == (3,) and updates["w"].shape == (3,)
