"""Lookahead: k steps forward, one step back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused
from test_conformance import walk
from trees import assert_equal, assert_ulps, avals

import gradtx
from gradtx import LookaheadParams

PARAMS = trees.small()
GRADIENTS = [trees.like(PARAMS, i) for i in range(7)]


def synced(params=PARAMS):
    return LookaheadParams.init_synced(params)


def by_hand(gradients, start, rate, period, alpha):
    """Zhang et al., arXiv:1907.08610, Algorithm 1, around gradient descent."""
    fast, slow, seen = start, start, []
    for t, g in enumerate(gradients, start=1):
        fast = fast - rate * g
        if t % period == 0:
            slow = slow + alpha * (fast - slow)
            fast = slow
        seen.append((fast, slow))
    return seen


@pytest.mark.parametrize("period", [1, 2, 3, 10])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_against_numpy_and_optax(period, alpha, x64):
    start = trees.numbers((4,), 1, jnp.float64)
    gradients = [trees.numbers((4,), i, jnp.float64) for i in range(7)]
    wanted = by_hand([np.asarray(g) for g in gradients], np.asarray(start), 0.1, period, alpha)
    for library in (gradtx, optax):
        tx = library.lookahead(library.sgd(0.1), period, alpha)
        params = library.LookaheadParams.init_synced(start)
        state = tx.init(params)
        for t, g in enumerate(gradients):
            updates, state = tx.update(g, state, params)
            params = library.apply_updates(params, updates)
            np.testing.assert_allclose(params.fast, wanted[t][0], rtol=1e-12)
            np.testing.assert_allclose(params.slow, wanted[t][1], rtol=1e-12)
            assert int(state.steps_since_sync) == (t + 1) % period


@pytest.mark.parametrize("name", ["adamw", "adadelta", "rprop", "sgd", "amsgrad"])
def test_around_optimizers(name):
    inner = gradtx.catalog.get(name).make()
    tx, params = gradtx.lookahead(inner, 2, 0.5), synced()
    state = tx.init(params)
    first = avals(state)
    assert avals(jax.eval_shape(tx.init, params)) == first
    for t, g in enumerate(GRADIENTS[:4]):
        updates, state = tx.update(g, state, params)
        params = gradtx.apply_updates(params, updates)
        assert avals(state) == first
        assert (t % 2 == 1) == (np.asarray(params.fast["b"]) == np.asarray(params.slow["b"])).all()
    fast, _, _ = walk(inner, PARAMS, GRADIENTS[:1])
    updates, _ = tx.update(GRADIENTS[0], tx.init(synced()), synced())
    assert_ulps(updates.fast, fast, 4)


@pytest.mark.parametrize("p_dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("g_dtype", ["float32", "bfloat16", "float16"])
def test_both_sets_are_the_same_number_after_they_meet(p_dtype, g_dtype):
    """To the bit; in optax each has a sum of its own, and they part by roundings."""
    params = synced({"w": trees.numbers((100,), 1, p_dtype)})
    tx = gradtx.lookahead(gradtx.adam(0.01), 5, 0.7)
    state = tx.init(params)
    first = avals(state)
    for i in range(20):
        g = {"w": trees.numbers((100,), i, g_dtype)}
        updates, state = tx.update(g, state, params)
        params = gradtx.apply_updates(params, updates)
    assert avals(state) == first
    assert params.slow["w"].dtype == p_dtype
    assert_equal(params.fast, params.slow)


@pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_optimizer_may_start_afresh(how):
    tx = gradtx.lookahead(gradtx.adam(0.1), 2, 0.5, reset_state=True)
    update, params = how(tx.update), synced()
    state = tx.init(params)
    counts = []
    for g in GRADIENTS[:4]:
        updates, state = update(g, state, params)
        params = gradtx.apply_updates(params, updates)
        counts.append(int(state.fast_state[0].count))
    assert counts == [1, 0, 1, 0]
    assert_equal(state, tx.init(params))
    # Two steps, and two more from where they led, as if for the first time.
    again = gradtx.lookahead(gradtx.adam(0.1), 2, 0.5)
    _, _, middle = walk(again, synced(), GRADIENTS[:2])
    _, _, end = walk(again, middle, GRADIENTS[2:4])
    assert_ulps(params, end, 4)


def test_random_keys_are_reset_too():
    """optax multiplies states by 0 and 1, which keys do not allow."""

    key = jax.random.key(0)

    def update(updates, state, params=None):
        return updates, jax.random.split(state)[0]

    noisy = gradtx.GradientTransformation(lambda params: key, update)
    tx = gradtx.lookahead(noisy, 2, 0.5, reset_state=True)
    _, state, _ = walk(tx, synced(), GRADIENTS[:1])
    assert not jnp.array_equal(jax.random.key_data(state.fast_state), jax.random.key_data(key))
    _, state, _ = walk(tx, synced(), GRADIENTS[:2])
    assert jnp.array_equal(jax.random.key_data(state.fast_state), jax.random.key_data(key))


def test_scan_vmap_and_donation():
    tx = gradtx.lookahead(gradtx.adamw(0.1), 2, 0.5, reset_state=True)
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *GRADIENTS)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(params, state, gradients):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), gradients)[0]

    _, state, params = walk(tx, synced(), GRADIENTS)
    start = synced(jax.tree.map(jnp.copy, PARAMS))
    assert_ulps(train(start, tx.init(start), stacked), (params, state), 4, of_largest=True)

    rows = jax.tree.map(lambda x: jnp.stack([x, -x]), PARAMS)
    both = jax.vmap(lambda p: walk(tx, synced(p), GRADIENTS[:3])[2])(rows)
    alone = walk(tx, synced(), GRADIENTS[:3])[2]
    assert_ulps(jax.tree.map(lambda x: x[0], both), alone, 4, of_largest=True)


def test_hyperparameters_may_be_traced():
    def end(period, alpha):
        tx = gradtx.lookahead(gradtx.sgd(0.1), period, alpha)
        return walk(tx, synced(), GRADIENTS[:4])[2].slow["b"]

    periods, alphas = jnp.array([1, 2]), jnp.array([0.5, 0.25])
    together = jax.jit(jax.vmap(end))(periods, alphas)
    for i, (period, alpha) in enumerate([(1, 0.5), (2, 0.25)]):
        np.testing.assert_allclose(together[i], end(period, alpha), rtol=1e-6)


def test_leaves_without_gradients_stand_still():
    params = synced({"a": jnp.ones(2), "b": jnp.ones(2), "n": None})
    tx = gradtx.lookahead(gradtx.sgd(0.1), 1, 0.5)
    updates, _ = tx.update({"a": jnp.ones(2), "b": None, "n": None}, tx.init(params), params)
    moved = gradtx.apply_updates(params, updates)
    assert_equal((moved.fast["b"], moved.slow["b"]), (params.fast["b"], params.slow["b"]))
    np.testing.assert_allclose(moved.slow["a"], 0.95)


def test_the_pair_of_optax_is_as_good():
    theirs = optax.LookaheadParams(fast=PARAMS, slow=PARAMS)
    tx = gradtx.lookahead(optax.sgd(0.1), 2, 0.5)
    updates, _ = tx.update(GRADIENTS[0], tx.init(theirs), theirs)
    assert isinstance(updates, optax.LookaheadParams)
    ours, _ = tx.update(GRADIENTS[0], tx.init(synced()), synced())
    assert isinstance(ours, LookaheadParams)
    assert_equal(tuple(updates), tuple(ours))
    half = {"w": jnp.ones(2, jnp.bfloat16)}  # optax's state changes its dtypes at the first step
    tx = gradtx.lookahead(optax.adam(0.1), 1, 0.5, reset_state=True)
    grads = {"w": jnp.ones(2)}
    jax.jit(tx.update)(grads, tx.init(synced(half)), synced(half))


def test_an_optimizer_with_numbers_in_its_state():
    counting = gradtx.GradientTransformation(lambda params: 0, lambda u, s, params=None: (u, s + 1))
    tx = gradtx.lookahead(counting, 2, 0.5, reset_state=True)
    for t in range(4):
        _, state, _ = walk(tx, synced(), GRADIENTS[: t + 1])
        assert int(state.fast_state) == (t + 1) % 2


def test_what_cannot_be_right_is_refused():
    with refused(ValueError, "lookahead", "sync_period must be a whole number, at least 1, got 0"):
        gradtx.lookahead(gradtx.sgd(0.1), 0, 0.5)
    tx = gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5)
    state = tx.init(synced())
    with refused(ValueError, "lookahead", "update(updates, state, params)"):
        tx.update(PARAMS, state)
    with refused(TypeError, "lookahead", "dict", "LookaheadParams"):
        tx.update(PARAMS, state, PARAMS)
    with refused(ValueError, "params.slow", "updates['a']"):
        tx.update(PARAMS, state, synced()._replace(slow={"b": PARAMS["b"]}))
