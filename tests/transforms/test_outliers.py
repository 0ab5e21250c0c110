"""Steps that are skipped: far outside of the running distribution, or not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

WINDOW, SIGMA = 8, 3.0


def by_hand(norms, losses):
    """Which steps OLMo-core's rule takes, with what is not finite left out of the history."""
    history, taken = [], []
    for now in zip(norms, losses, strict=True):
        last = np.array(history[-WINDOW:])
        go = bool(np.all(np.isfinite(now)))
        if go and len(last) >= WINDOW // 2:
            go = bool(np.all(now - last.mean(0) <= SIGMA * last.std(0, ddof=1)))
        taken.append(go)
        history += [now] if np.all(np.isfinite(now)) else []
    return taken


def test_against_the_rule_by_hand(x64):
    random = np.random.default_rng(1)
    norms, losses = np.exp(0.1 * random.standard_normal((2, 60)))
    norms[[20, 37]], losses[[30, 50]] = (9.0, np.nan), (5.0, np.inf)
    norms[40:] *= 6  # it stays, and is accepted
    wanted = by_hand(norms, losses)
    assert wanted.count(False) == 5 and not wanted[40] and all(wanted[41:50])
    tx = gradtx.skip_outliers(gradtx.trace(1.0), WINDOW, SIGMA)

    @jax.jit
    def scan(norms, losses):
        def step(state, now):
            updates, state = tx.update(jnp.array([now[0], 0.0]), state, value=now[1])
            return state, updates[0]

        return jax.lax.scan(step, tx.init(jnp.zeros(2)), (norms, losses))

    state, updates = scan(norms, losses)
    np.testing.assert_allclose(updates, np.where(wanted, np.cumsum(np.where(wanted, norms, 0)), 0))
    assert int(gradtx.metrics(state)["skipped"]) == wanted.count(False)
    assert bool(jnp.all(jnp.isfinite(state.history)))


def test_equal_values_are_no_outliers():
    """Their deviation is 0, and the mean of float32 numbers is not exactly their value."""
    tx = gradtx.skip_outliers(gradtx.sgd(0.1), 16)
    g = jnp.array([0.1, 0.7])
    state = tx.init(g)
    for _ in range(20):
        _, state = tx.update(g, state, value=jnp.bfloat16(0.3))
    assert int(state.skipped) == 0


def test_windows_and_sizes():
    with pytest.raises(ValueError, match="window must be a whole number, at least 2, got 1"):
        gradtx.skip_outliers(gradtx.sgd(0.1), window=1)
    # Around `apply_if_finite`, both count, under their names.
    tx = gradtx.skip_outliers(gradtx.apply_if_finite(gradtx.sgd(0.1), 2), 4)
    _, state = tx.update(jnp.array([jnp.inf]), tx.init(jnp.zeros(1)))
    assert {"skipped", "total_notfinite"} <= set(gradtx.metrics(state))
    assert gradtx.extra_args(tx) == ("value", "learning_rate")
