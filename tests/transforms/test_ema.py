"""The exponential moving average of updates."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees

import gradtx


def run(tx, gradients, params):
    state, seen = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(g, state, params)
        seen.append(updates)
    return seen, state


@pytest.mark.parametrize(
    ("debias", "wanted"),
    # m = m/2 + g/2 of 2, 4, -2: 1, 5/2, 1/4; the weights are 1/2, 3/4, 7/8
    [(True, [2.0, 10 / 3, 2 / 7]), (False, [1.0, 5 / 2, 1 / 4])],
)
def test_three_steps_by_hand(debias, wanted, x64):
    gradients = [jnp.asarray(g) for g in (2.0, 4.0, -2.0)]
    seen, state = run(gradtx.ema(0.5, debias), gradients, jnp.zeros(()))
    np.testing.assert_allclose(seen, wanted, rtol=1e-14)
    np.testing.assert_allclose(state.ema, 1 / 4, rtol=1e-14)
    assert int(state.count) == 3


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("debias", [True, False])
def test_against_numpy_and_optax(decay, debias, x64):
    params = trees.small(with_complex=True)
    params = {k: v for k, v in params.items() if k != "c"}
    gradients = [trees.like(params, i) for i in range(10)]
    seen, _ = run(gradtx.ema(decay, debias), gradients, params)
    theirs, _ = run(optax.ema(decay, debias), gradients, params)
    for name in params:
        m = 0.0
        for t, g in enumerate(gradients, start=1):
            m = decay * m + (1 - decay) * np.asarray(g[name]).astype(complex)
            wanted = m / (1 - decay**t) if debias else m
            np.testing.assert_allclose(seen[t - 1][name], wanted, rtol=1e-5)
            np.testing.assert_allclose(theirs[t - 1][name], wanted, rtol=1e-4, atol=1e-5)


def test_the_average_of_equal_updates_is_that_update():
    """From the first step on, to the last digits; optax's is off by 5e-5."""
    seen, _ = run(gradtx.ema(0.9999), [jnp.ones(1)] * 3, jnp.zeros(1))
    np.testing.assert_allclose(np.ravel(seen), 1, rtol=4e-7)


def test_half_precision_is_averaged_in_float32_unless_asked():
    g = jnp.ones(2, jnp.bfloat16)
    seen, state = run(gradtx.ema(0.999, debias=False), [g] * 1500, g)
    assert state.ema.dtype == jnp.float32 and seen[-1].dtype == jnp.bfloat16
    np.testing.assert_allclose(state.ema, 1 - 0.999**1500, rtol=1e-4)
    theirs = run(optax.ema(0.999, debias=False), [g] * 1500, g)[1]  # stands still at 1/2
    np.testing.assert_array_equal(np.asarray(theirs.ema, np.float32), 0.5)

    seen, state = run(gradtx.ema(0.9, accumulator_dtype=jnp.bfloat16), [jnp.ones(2)], jnp.ones(2))
    assert state.ema.dtype == jnp.bfloat16 and seen[0].dtype == jnp.float32
    half = jnp.ones(2, jnp.float16)
    seen, _ = run(gradtx.ema(0.9, accumulator_dtype=jnp.float32), [half], half)
    assert seen[0].dtype == jnp.float16
