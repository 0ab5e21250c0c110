"""`watch` and `counted`: right readings, no effect on the steps, and little cost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from representatives import first
from test_conformance import each_entry, step_of
from trees import assert_equal, avals

import gradtx


def told(state):
    return {name: float(value) for name, value in gradtx.metrics(state).items()}


def test_the_readings_are_right():
    tx = gradtx.watch(gradtx.sgd(0.5))
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)}
    state = tx.init(params)
    assert told(state) == dict.fromkeys(
        ("gradient_norm", "update_norm", "update_ratio", "skipped"), 0.0
    )
    g = {"a": jnp.array([0.0, 6.0]), "b": jnp.array([8.0, 0.0])}
    _, state = tx.update(g, state, params)
    wanted = {"gradient_norm": 10.0, "update_norm": 5.0, "update_ratio": 1.0, "skipped": 0.0}
    assert told(state) == wanted
    _, state = tx.update(g, state)  # without parameters there is no ratio
    assert told(state) == {**wanted, "update_ratio": 0.0}


def test_half_precision_is_measured_in_float32():
    """The square of 300 is infinite in float16; 256 and 1 are 256 in bfloat16."""
    for dtype, sizes in (("float16", [300.0] * 4), ("bfloat16", [16.0] + [1.0] * 44)):
        params = [jnp.full((), size, dtype) for size in sizes]
        tx = gradtx.watch(gradtx.sgd(1.0))
        _, state = tx.update(params, tx.init(params), params)
        exact = np.linalg.norm(sizes)
        assert told(state) == pytest.approx(
            {"gradient_norm": exact, "update_norm": exact, "update_ratio": 1.0, "skipped": 0.0},
            rel=1e-6,
        )
        assert {x.dtype for n, x in gradtx.metrics(state).items() if n != "skipped"} == {
            jnp.dtype("float32")
        }


def test_skipped_steps_are_counted():
    params = jnp.ones(2)
    tx = gradtx.watch(gradtx.apply_if_finite(gradtx.sgd(0.1), 5))
    state = tx.init(params)
    for bad, skipped in ((1.0, 0), (jnp.nan, 1), (0.0, 1), (jnp.inf, 2), (2.0, 2)):
        _, state = tx.update(jnp.array([1.0, 1.0]) * bad, state, params)
        assert told(state)["skipped"] == skipped, bad
    assert not np.isfinite(bad) or told(state)["gradient_norm"] == pytest.approx(8**0.5)
    _, state = tx.update(jnp.array([jnp.nan, 1.0]), state, params)
    assert np.isnan(told(state)["gradient_norm"])

    tx = gradtx.watch(gradtx.MultiSteps(gradtx.sgd(0.1), 2))
    state = tx.init(params)
    for _ in range(4):
        _, state = tx.update(params, state, params)
    assert told(state)["skipped"] == 2  # the micro-steps between


def test_what_a_guard_inside_counts_is_told_once():
    params = jnp.ones(2)
    guarded = gradtx.skip_outliers(gradtx.chain(gradtx.clip(9.0), gradtx.sgd(0.1)))
    for tx in (gradtx.watch(guarded), gradtx.watch(gradtx.counted(guarded))):
        state = tx.init(params)
        for g in (1.0, jnp.nan, 0.5):
            _, state = tx.update(g * params, state, params)
        assert told(state)["skipped"] == 1 and "skipped#2" not in told(state)
    twice = gradtx.watch(gradtx.chain(gradtx.clip(9.0), gradtx.watch(gradtx.sgd(0.1))))
    found = told(twice.init(params))
    assert "gradient_norm#2" in found and "skipped#2" not in found  # norms may differ
    two = gradtx.partition(
        {"a": gradtx.watch(gradtx.sgd(0.1)), "b": gradtx.skip_outliers(gradtx.sgd(0.1))},
        {"x": "a", "y": "b"},
    )
    assert {"a/skipped", "b/skipped"} <= told(two.init({"x": params, "y": params})).keys()


def test_counted_counts_the_steps_that_changed_something():
    tx = gradtx.counted(gradtx.chain(gradtx.clip(1.0), gradtx.zero_nans()), "bounded")
    state = tx.init(jnp.zeros(2))
    for g, number in (([0.5, 1.0], 0), ([0.5, 2.0], 1), ([0.5, 0.0], 1), ([jnp.nan, 0.0], 2)):
        _, state = jax.jit(tx.update)(jnp.array(g), state)
        assert told(state)["bounded"] == number
    keeps = gradtx.counted(gradtx.clip_by_global_norm(1.0))
    _, state = keeps.update(jnp.array([jnp.nan]), keeps.init(jnp.zeros(1)))
    assert told(state) == {"acted": 0}  # what is not finite passes
    both = gradtx.chain(gradtx.counted(gradtx.clip(2.0)), gradtx.counted(gradtx.clip(1.0)))
    _, state = both.update(jnp.array([1.5]), both.init(jnp.zeros(1)))
    assert told(state) == {"acted": 0, "acted#2": 1}


@pytest.mark.slow
@each_entry
def test_steps_are_the_same_to_the_last_bit(entry):
    """In a jitted step that adds the updates, as one writes it."""
    params = {"w": trees.numbers((3, 4), 1)}
    gradients = [trees.like(params, i) for i in range(3)]

    def train(tx):
        @jax.jit
        def step(g, params, state):
            updates, state = step_of(entry, tx)(g, state, params)
            return gradtx.apply_updates(params, updates), state

        where, state = params, tx.init(params)
        for g in gradients:
            where, state = step(g, where, state)
        return where, state

    plain, state = train(entry.make())
    watched, around = train(gradtx.watch(entry.make()))
    assert_equal((watched, around.inner_state), (plain, state))
    assert around.update_norm > 0


def test_extra_arguments_and_the_rate_pass():
    tx = gradtx.watch(gradtx.sgd(0.1))
    params, traced = jnp.ones(2), []

    @jax.jit
    def step(state, rate):
        traced.append(1)
        return tx.update(params, state, params, learning_rate=rate)

    state = tx.init(params)
    for rate in (0.5, 0.25):
        updates, state = step(state, rate)
        np.testing.assert_array_equal(updates, -rate * params)
        assert float(gradtx.hyperparams(state)["learning_rate"]) == rate
    assert len(traced) == 1


def test_frozen_integers_inside_are_left_out_of_the_norms():
    params = {"w": jnp.ones(4), "n": jnp.arange(3)}
    tx = gradtx.watch(gradtx.partition(
        {"train": gradtx.sgd(1.0), "hold": gradtx.set_to_zero()}, {"w": "train", "n": "hold"}
    ))  # fmt: skip
    state = tx.init(params)
    _, new = tx.update(params, state, params)
    assert avals(new) == avals(state)
    assert told(new) == {"gradient_norm": 2, "update_norm": 2, "update_ratio": 1, "skipped": 0}


def test_gradients_through_watch_are_finite_at_zero():
    tx = gradtx.watch(gradtx.sgd(0.1))

    def f(g):
        updates, state = tx.update(g, tx.init(g), g)
        return jnp.sum(updates) + state.gradient_norm + state.update_ratio

    assert bool(jnp.all(jnp.isfinite(jax.grad(f)(jnp.zeros(2)))))
    np.testing.assert_allclose(jax.vmap(f)(jnp.eye(2)), [-0.1 + 1 + 0.1] * 2, rtol=1e-6)


def test_inside_of_optax():
    tx = optax.chain(optax.clip(1.0), gradtx.watch(gradtx.sgd(0.1)))
    _, state = tx.update(jnp.full(4, 9.0), tx.init(jnp.ones(4)), jnp.ones(4))
    assert told(state)["gradient_norm"] == 2.0


# ---- The cost ---------------------------------------------------------------------------------


def costs(tx, params):
    """Passes over the parameters, and operations for each, in a compiled step."""

    def step(g, params, state):
        updates, state = tx.update(g, state, params)
        return gradtx.apply_updates(params, updates), state

    found = jax.jit(step).lower(params, params, tx.init(params)).compile().cost_analysis()
    size = sum(x.size for x in jax.tree.leaves(params))
    return np.array([found["bytes accessed"] / (4 * size), found["flops"] / size])


@pytest.fixture
def usual(monkeypatch):
    """Compiles only what runs while squares do not overflow: XLA counts both ways of a branch."""
    jax.clear_caches()
    monkeypatch.setattr(jax.lax, "cond", lambda condition, yes, no: no())
    yield
    jax.clear_caches()


@pytest.mark.parametrize("name, passes", list(first([("sgd", 6), ("adamw", 9)])))
def test_what_watching_costs(name, passes, usual):
    """Three norms are 6 operations for each element: a product and a sum for each.

    The gradients and the parameters are read once more. XLA on CPUs puts no sum into a loop that
    writes arrays, and so it stores what the updates are made of, and their squares; these are the
    other passes. An accelerator's compiler has fewer.
    """
    params = {f"w{i}": jnp.ones((64, 80)) for i in range(3)}  # too large for sums in float64
    plain = getattr(gradtx, name)(0.1)
    more = costs(gradtx.watch(plain), params) - costs(plain, params)
    assert more[0] < passes and more[1] < 12, more


def test_what_counting_costs(usual):
    params = {f"w{i}": jnp.ones((64, 64)) for i in range(3)}
    clip, adam = gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)
    more = costs(gradtx.chain(gradtx.counted(clip), adam), params)
    more -= costs(gradtx.chain(clip, adam), params)
    assert more[0] < 2, more
