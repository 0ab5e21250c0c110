"""Aggregators against NumPy statements over all elements at once; optax second."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.experimental._aggregating  # not importable under its public name
import pytest

import gradtx
from gradtx.experimental import aggregating

RNG = np.random.default_rng(0)
PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}


def elements(n=8, calls=1, dtype=np.float32):
    """Gradients of `n` elements for each of several calls."""
    return [
        jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=(n, *p.shape)), dtype), PARAMS)
        for _ in range(calls)
    ]


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def mean(g, axis=0):
    return jax.tree.map(lambda x: np.asarray(x, np.float64).mean(axis), g)


def together(calls):
    return jax.tree.map(lambda *xs: np.concatenate(xs), *calls)


def test_average_over_elements():
    (g,) = elements()
    tx = aggregating.average_per_element_updates()
    assert isinstance(tx, aggregating.Aggregator)
    updates, state = tx.update(g, tx.init(PARAMS), PARAMS, value=1.0)
    close(updates, mean(g))
    assert state == tx.init(PARAMS)
    two = jax.tree.map(lambda x: jnp.stack([x, 3 * x], axis=1), g)
    close(aggregating.average_per_element_updates((0, 1)).update(two, state)[0], mean(two, (0, 1)))


def test_half_precision_is_averaged_in_single():
    ones = jnp.full(4096, 300.0, jnp.float16)
    tx = aggregating.average_per_element_updates()
    assert tx.update(ones, ())[0] == 300 and tx.update(ones, ())[0].dtype == jnp.float16
    tx = aggregating.accumulate_avg_updates(3)
    state = tx.init(jnp.zeros((), jnp.bfloat16))
    assert state.avg_grad.dtype == jnp.float32
    for g in (1.0, 1.0, 1.0234375):
        updates, state = tx.update(jnp.asarray(g, jnp.bfloat16), state)
    assert updates == jnp.asarray((2 + 1.0234375) / 3, jnp.bfloat16)
    assert updates.dtype == jnp.bfloat16


def test_counting_elements():
    count = aggregating.get_batch_size_from_per_elt_updates
    assert count({"w": jnp.ones((4, 3, 2)), "b": jnp.ones((4, 3))}, (0, 1)) == 12
    with pytest.raises(ValueError, match=r"same batch size.*updates\['b'\].*5.*updates\['w'\].*4"):
        count({"w": jnp.ones((4, 3)), "b": jnp.ones(5)}, 0)
    with pytest.raises(ValueError, match=r"updates\['b'\].*\(0, 1\).*\(4,\)"):
        count({"w": jnp.ones((4, 3)), "b": jnp.ones(4)}, [0, 1])
    with pytest.raises(ValueError, match="same batch size"):
        count({}, 0)


@pytest.mark.parametrize("jitted", [False, True])
def test_accumulation_gives_the_mean_of_each_window(jitted):
    tx = aggregating.accumulate_avg_updates(3)
    update = jax.jit(tx.update) if jitted else tx.update
    state = tx.init(PARAMS)
    calls = [mean(g) for g in elements(calls=6)]
    calls = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), calls)
    for t, g in enumerate(calls):
        before = state
        updates, state = update(g, state)
        assert bool(state.ready) == (t % 3 == 2) and int(state.micro_step) == (t + 1) % 3
        want = jax.tree.map(lambda *x: sum(x) / 3, *calls[t - 2 : t + 1]) if t % 3 == 2 else None
        close(updates, jax.tree.map(np.zeros_like, g) if want is None else want)
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, before)
        assert same_types(state, before)


def same_types(a, b):
    def types(tree):
        return jax.tree.map(lambda x: (x.dtype, x.shape, x.weak_type), tree)

    return types(a) == types(b)


def test_a_bad_micro_batch_spoils_its_own_window_only():
    tx = aggregating.average_incrementally_updates(0, 2)
    state = tx.init(jnp.zeros(()))
    given = []
    for g in ([np.nan, 1], [1, 1], [1, 1], [3, 3]):
        updates, state = tx.update(jnp.array(g, jnp.float32), state)
        given.append(float(updates))
    assert np.isnan(given[1]) and given[2:] == [0, 2]


def test_incremental_averages_are_of_the_right_kind():
    kind = aggregating.average_incrementally_updates
    assert isinstance(kind(None, 2), gradtx.GradientTransformation)
    assert isinstance(kind(0, 1), aggregating.Aggregator)
    assert kind(None, 1).init(PARAMS) == gradtx.identity().init(PARAMS)
    with pytest.raises(ValueError, match="accumulation_steps must be positive, got 0"):
        kind(0, 0)


@pytest.mark.parametrize("axis, steps", [(0, 1), (0, 2), (None, 2)])
@pytest.mark.parametrize("jitted", [False, True])
def test_training_is_that_on_whole_batches(axis, steps, jitted):
    """Adam, whose state would tell if it ran more often than once a window."""
    opt = gradtx.adam(0.1)
    tx = aggregating.process(
        gradtx.identity(), aggregating.average_incrementally_updates(axis, steps), opt
    )
    assert isinstance(tx, aggregating.Aggregator) == (axis == 0)
    update = jax.jit(tx.update) if jitted else tx.update
    params, state = PARAMS, tx.init(PARAMS)
    want, want_state = PARAMS, opt.init(PARAMS)
    for _ in range(3):
        calls = elements(4, steps)
        for t, g in enumerate(calls):
            g = g if axis == 0 else jax.tree.map(lambda x: x.mean(0), g)
            updates, new_state = update(g, state, params)
            assert same_types(new_state, state)
            state = new_state
            if t < steps - 1:
                assert all((u == 0).all() for u in jax.tree.leaves(updates))
            params = gradtx.apply_updates(params, updates)
        g = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), mean(together(calls)))
        updates, want_state = opt.update(g, want_state, want)
        want = gradtx.apply_updates(want, updates)
        close(params, want)
        close(state[2], want_state)


def test_process_hands_on_extra_arguments_and_what_the_aggregator_adds():
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra)
        return updates, state

    tx = aggregating.process(
        gradtx.stateless(lambda g, _: jnp.clip(g, -1, 1)),
        aggregating.Aggregator(lambda p: (), lambda g, s, p=None: ((g.mean(0), {"n": len(g)}), s)),
        gradtx.GradientTransformation(lambda p: (), update),
        aggregator_has_aux=True,
    )
    updates, _ = tx.update(jnp.array([0.5, -7.0, 0.2]), tx.init(jnp.zeros(())), value=2.0)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-5)
    assert seen == {"value": 2.0, "n": 3}


def test_optax_parts_stand_in_process():
    theirs = optax.experimental._aggregating
    tx = aggregating.process(
        optax.clip(1.0), theirs.average_incrementally_updates(0, 2), optax.adam(0.1)
    )
    state = tx.init(PARAMS)
    for g in elements(calls=2):
        updates, state = jax.jit(tx.update)(g, state)
    assert all((u != 0).all() for u in jax.tree.leaves(updates))


# ---- Mean and variance ------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_mean_and_squares_of_a_batch_in_parts(steps, shift):
    """With a mean a thousand times the spread, the sum of squares would lose all its digits."""
    calls = [jax.tree.map(lambda x: x + shift, g) for g in elements(4, steps)]
    tx = aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, steps)
    state = tx.init(PARAMS)
    for t, g in enumerate(calls):
        (means, aux), state = jax.jit(tx.update)(g, state)
        if t < steps - 1:
            assert aux["sample_size"] == 0
            assert all((x == 0).all() for x in jax.tree.leaves((means, aux)))
    batch = together(calls)
    close(means, mean(batch))
    assert aux["sample_size"] == 4 * steps
    squares = jax.tree.map(lambda x: np.var(np.asarray(x, np.float64), 0) * len(x), batch)
    close(aux["sum_sq_diff_grads"], squares, rtol=1e-3 if shift else 1e-5)


def test_squares_of_complex_gradients_are_real():
    g = jnp.array([1 + 1j, 3 - 1j])
    tx = aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 2)
    state = tx.init(jnp.zeros((), jnp.complex64))
    assert state.sum_sq_diff_grads.dtype == jnp.float32
    for g in (jnp.array([1 + 1j, 3 - 1j]), jnp.array([0j, 2 + 4j])):
        (m, aux), state = tx.update(g, state)
    every = np.array([1 + 1j, 3 - 1j, 0, 2 + 4j])
    np.testing.assert_allclose(m, every.mean(), rtol=1e-6)
    np.testing.assert_allclose(aux["sum_sq_diff_grads"], np.var(every) * 4, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_followed_mean_and_variance(decay, steps):
    opt = gradtx.sgd(0.1)
    tx = aggregating.add_mean_variance_to_opt(opt, decay, 0, steps)
    theirs = optax.experimental._aggregating.add_mean_variance_to_opt(
        optax.sgd(0.1), decay, 0, steps
    )
    assert isinstance(tx, aggregating.Aggregator)
    state, their_state = tx.init(PARAMS), theirs.init(PARAMS)
    unbiased = aggregating.get_unbiased_mean_and_variance_ema
    close(unbiased(state), (PARAMS, PARAMS))  # zeros; NaN in optax
    weights = means = variances = 0.0
    update = jax.jit(tx.update)
    for _ in range(3):
        calls = elements(4, steps)
        for g in calls:
            updates, new_state = update(g, state)
            assert same_types(new_state, state)
            state = new_state
            their_updates, their_state = theirs.update(g, their_state)
        close(updates, their_updates)
        g = together(calls)
        close(updates, jax.tree.map(lambda x: -0.1 * x, mean(g)))
        variance = jax.tree.map(lambda x: np.var(np.asarray(x, np.float64), 0, ddof=1), g)
        weights = decay * weights + 1 - decay
        means = moved(means, mean(g), decay)
        variances = moved(variances, variance, decay)
        want = jax.tree.map(lambda x, w=weights: x / w, (means, variances))
        close(unbiased(state), want)
        if decay < 0.99:
            close(
                unbiased(state),
                optax.experimental._aggregating.get_unbiased_mean_and_variance_ema(their_state),
                rtol=1e-4,
            )


def moved(average, new, decay):
    if isinstance(average, float):
        return jax.tree.map(lambda x: (1 - decay) * x, new)
    return jax.tree.map(lambda a, x: decay * a + (1 - decay) * x, average, new)


def test_names_and_fields_are_optaxs():
    theirs = optax.experimental._aggregating
    for name in ("AccumulateAvgUpdatesState", "Aggregator"):
        assert getattr(aggregating, name)._fields == getattr(theirs, name)._fields
    for name in ("PerElementMeanAndSumSqDiffGradsState", "PerElementMeanAndVarianceEMAState"):
        assert getattr(aggregating, name)._fields == getattr(theirs, name)._fields


def test_what_is_rejected():
    unbiased = aggregating.get_unbiased_mean_and_variance_ema
    with pytest.raises(ValueError, match="PerElementMeanAndVarianceEMAState"):
        unbiased(gradtx.sgd(0.1).init(PARAMS))
    tx = aggregating.track_per_element_mean_and_variance_with_ema()
    with pytest.raises(ValueError, match=r"needs update\(..., sum_sq_diff_grads"):
        tx.update(PARAMS, tx.init(PARAMS))
    tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(0.1))
    with pytest.raises(ValueError, match="sample_size must be at least 2, got 1"):
        tx.update(elements(1)[0], tx.init(PARAMS))
    with pytest.raises(ValueError, match="accumulation_steps must be positive, got 0"):
        aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 0)
