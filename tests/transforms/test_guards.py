"""Steps left out: what is skipped, what is counted, and that nothing runs meanwhile."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from representatives import each_engine
from test_conformance import extras
from trees import assert_equal, avals

import gradtx

NAN = {"w": jnp.array([1.0, jnp.nan]), "b": jnp.array(2.0)}
INF = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(-jnp.inf)}
GOOD = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}


def counting(seen):
    """A transformation that doubles, counts its steps in its state, and tells when it runs."""

    def init(params):
        return jnp.zeros((), jnp.int32)

    def update(updates, state, params=None, **extra):
        jax.debug.callback(lambda: seen.append(1))
        return jax.tree.map(lambda g: 2 * g, updates), state + 1

    return gradtx.GradientTransformation(init, update)


@pytest.fixture(params=[False, True], ids=["eager", "jitted"])
def maybe_jit(request):
    return jax.jit if request.param else lambda f: f


def test_apply_if_finite_counts_what_it_says(maybe_jit):
    seen = []
    tx = gradtx.apply_if_finite(counting(seen), max_consecutive_errors=2)
    update = maybe_jit(tx.update)
    state = tx.init(GOOD)
    # gradient; does it run; in a row, last finite, in all
    story = [
        (GOOD, True, (0, True, 0)),
        (NAN, False, (1, False, 1)),
        (INF, False, (2, False, 2)),
        (GOOD, True, (0, True, 2)),  # a good one starts the row again
        (NAN, False, (1, False, 3)),
        (NAN, False, (2, False, 4)),
        (NAN, True, (3, False, 5)),  # two were left out: this one passes
        (INF, True, (4, False, 6)),  # and so do the next in the same row
        (GOOD, True, (0, True, 6)),
        (NAN, False, (1, False, 7)),  # a new row
    ]
    ran = 0
    for g, runs, counts in story:
        updates, new = update(g, state)
        jax.effects_barrier()
        ran += runs
        assert len(seen) == ran and int(new.inner_state) == ran
        assert (int(new[0]), bool(new[1]), int(new[2])) == counts
        want = jax.tree.map((lambda g: 2 * g) if runs else jnp.zeros_like, g)
        assert_equal(updates, want)
        assert avals(new) == avals(state)
        state = new


def test_conditions_see_0_first_and_steps_left_out_count(maybe_jit):
    for wrap in (gradtx.conditionally_transform, gradtx.conditionally_mask):
        seen = []
        tx = wrap(counting(seen), lambda step: step % 3 == 0)
        state, update = tx.init(GOOD), maybe_jit(tx.update)
        for i in range(7):
            updates, state = update(GOOD, state)
            jax.effects_barrier()
            factor = 2 if i % 3 == 0 else (1 if wrap is gradtx.conditionally_transform else 0)
            assert_equal(updates, jax.tree.map(lambda g, f=factor: f * g, GOOD))
            assert int(state.step) == i + 1
            assert len(seen) == int(state.inner_state) == i // 3 + 1


def test_conditions_may_see_extra_arguments(maybe_jit):
    def below(step, *, value, **extra):
        return value < 1.0

    for wrap in (gradtx.conditionally_transform, gradtx.conditionally_mask):
        tx = wrap(counting([]), below, forward_extra_args=True)
        state, update = tx.init(GOOD), maybe_jit(tx.update)
        _, state = update(GOOD, state, value=2.0)
        _, state = update(GOOD, state, value=0.5)
        assert int(state.inner_state) == 1 and int(state.step) == 2
        with pytest.raises(TypeError, match="value"):
            wrap(counting([]), below).update(GOOD, state)


@each_engine
@pytest.mark.parametrize(
    "dtypes",
    [("bfloat16", "float32"), pytest.param(("float32", "float32"), marks=pytest.mark.slow)],
    ids=str,
)
def test_every_optimizer_may_be_guarded(entry, dtypes):
    """One bad gradient changes nothing; a good one does what it does without the guard."""
    params = {"w": trees.numbers((2, 3), 1, dtypes[0])}
    g = {"w": trees.numbers((2, 3), 2, dtypes[1])}
    bad = {"w": g["w"].at[0, 0].set(jnp.nan)}
    alone = entry.make()
    tx = gradtx.apply_if_finite(entry.make(), 3)
    state = tx.init(params)
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, **extras(entry, g, p)))
    updates, after_bad = update(bad, state, params)
    assert_equal(updates, jax.tree.map(jnp.zeros_like, g))
    assert_equal(after_bad.inner_state, state.inner_state)
    assert avals(after_bad) == avals(state)
    updates, after_good = update(g, after_bad, params)
    want, want_state = jax.jit(lambda g, s, p: alone.update(g, s, p, **extras(entry, g, p)))(
        g, alone.init(params), params
    )
    trees.assert_ulps(updates, want, 2)
    trees.assert_ulps(after_good.inner_state, want_state, 2)
    assert avals(jax.eval_shape(tx.init, params)) == avals(state)


def test_states_of_other_libraries_that_change_their_dtype_can_be_guarded():
    params, g = {"w": jnp.ones(2, jnp.bfloat16)}, {"w": jnp.ones(2, jnp.float32)}
    tx = gradtx.apply_if_finite(optax.sgd(0.1, momentum=0.9), 1)
    state = tx.init(params)
    updates, new = jax.jit(tx.update)(g, state, params)
    assert avals(new) == avals(state) and avals(updates) == avals(g)


def test_a_guard_in_a_scan_and_under_vmap():
    tx = gradtx.apply_if_finite(gradtx.adam(0.1), 2)
    stream = jnp.array([[1.0, jnp.nan, 2.0], [1.0, 1.0, jnp.inf]])

    def run(gs):
        def step(state, g):
            updates, state = tx.update(g, state)
            return state, updates

        return jax.lax.scan(step, tx.init(jnp.zeros(())), gs)

    state, updates = jax.vmap(run)(stream)
    np.testing.assert_array_equal(state.total_notfinite, [1, 1])
    np.testing.assert_array_equal(state.inner_state[0].count, [2, 2])
    assert bool(jnp.all(jnp.isfinite(updates)))
    assert updates[0, 1] == 0 and updates[1, 2] == 0


def test_nothing_is_compiled_again_in_eager_steps():
    tx = gradtx.apply_if_finite(gradtx.adamw(0.1), 2)
    state = tx.init(GOOD)
    for g in (GOOD, NAN, GOOD):
        _, state = tx.update(g, state, GOOD)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        listen := lambda event, _, **kwargs: compiled.append(event)
    )
    try:
        for g in (GOOD, INF, GOOD):
            _, state = tx.update(g, state, GOOD)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "trace" in event]


def test_what_is_skipped():
    assert not gradtx.skip_not_finite(GOOD, 0, None)[0]
    for bad in (NAN, INF):
        skip, told = gradtx.skip_not_finite(bad, 0, None)
        assert skip and told["should_skip"] and int(told["num_not_finite"]) == 1
    large = functools.partial(gradtx.skip_large_updates, max_squared_norm=14.0)
    assert not large(GOOD, 0, None)[0]  # 1 + 4 + 9 is not above 14
    assert large(jax.tree.map(lambda g: g * 1.001, GOOD), 0, None)[0]
    assert large(NAN, 0, None)[0] and large(INF, 0, None)[0]
    # in half precision the squares would overflow
    half = {"w": jnp.full((100,), 300.0, jnp.float16)}
    skip, told = gradtx.skip_large_updates(half, 0, None, 1e7)
    assert not skip and told["norm_squared"] == 9e6
