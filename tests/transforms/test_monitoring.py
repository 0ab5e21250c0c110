"""Measurements in the state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused
from test_conformance import walk
from trees import assert_equal, avals

import gradtx

PARAMS = trees.small()
GRADIENTS = [trees.like(PARAMS, i) for i in range(3)]


def test_a_snapshot_in_a_chain_sees_what_reaches_it():
    tx = gradtx.chain(
        gradtx.snapshot("before", gradtx.global_norm),
        gradtx.clip_by_global_norm(1.0),
        gradtx.snapshot("after", gradtx.global_norm),
    )
    state = tx.init(PARAMS)
    assert float(state[0].measurement["before"]) == 0
    for g in GRADIENTS:
        updates, state = tx.update(g, state)
        assert_equal(state[0].measurement["before"], gradtx.global_norm(g))
        assert_equal(state[2].measurement["after"], gradtx.global_norm(updates))
        np.testing.assert_allclose(state[2].measurement["after"], 1, rtol=1e-6)
    assert float(optax.tree.get(state, "before")) == float(gradtx.global_norm(g))


def test_averages_of_measurements():
    tx = gradtx.monitor(
        {
            "norm": gradtx.global_norm,
            "average": gradtx.measure_with_ema(gradtx.global_norm, 0.5),
            "raw": gradtx.measure_with_ema(gradtx.global_norm, 0.5, debias=False),
            "often": gradtx.measure_with_ema(lambda u: gradtx.global_norm(u) > 3, 0.5),
            "count": gradtx.measure_with_ema(lambda u: len(jax.tree.leaves(u)), 0.5),
        }
    )
    state = tx.init(jnp.zeros(1))
    for g in (2.0, 4.0, 2.0):
        updates, state = tx.update(jnp.array([g]), state)
        assert_equal(updates, jnp.array([g]))
    seen = state.measurements
    # m = m/2 + g/2: 1, 5/2, 9/4; the last weight is 7/8. Often: 0, 1/2, 1/4.
    np.testing.assert_allclose(seen["norm"], 2, rtol=1e-6)
    np.testing.assert_allclose(seen["average"], 9 / 4 / (7 / 8), rtol=1e-6)
    np.testing.assert_allclose(seen["raw"], 9 / 4, rtol=1e-6)
    np.testing.assert_allclose(seen["often"], 1 / 4 / (7 / 8), rtol=1e-6)
    np.testing.assert_allclose(seen["count"], 1, rtol=1e-6)
    assert optax.tree.get(state, "often") is seen["often"]


def test_optax_measures_the_same():
    def measure(library):
        tx = library.monitor(
            {
                "norm": library.tree.norm,
                "average": library.measure_with_ema(lambda u: u["b"], 0.9),
            }
        )
        return walk(tx, PARAMS, GRADIENTS)[1].measurements

    ours, theirs = measure(gradtx), measure(optax)
    np.testing.assert_allclose(ours["norm"], theirs["norm"], rtol=1e-6)
    np.testing.assert_allclose(ours["average"], theirs["average"], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_measurements_of_any_kind_keep_their_types(dtype):
    """optax's first state has no measurements, and later ones have the measure's own types."""

    def kinds(u):
        return {"flag": u["w"][0] > 0, "number": 3, "half": u["w"], "none": None, "float": 1.5}

    params = {"w": trees.numbers((2,), 1, dtype)}
    for tx in (
        gradtx.snapshot("kinds", kinds),
        gradtx.monitor({"kinds": kinds, "average": gradtx.measure_with_ema(kinds, 0.9)}),
    ):
        first = tx.init(params)
        assert not any(weak for *_, weak in avals(first)[1])
        for g in (params, {"w": params["w"].astype(jnp.float32)}):
            _, state = tx.update(g, first)
            assert avals(state) == avals(first)
            _, state = jax.jit(tx.update)(g, first)
            assert avals(state) == avals(first)
    assert state.measurements["kinds"]["number"].tolist() == 3
    assert state.measurements["kinds"]["half"].dtype == jnp.float32
    np.testing.assert_allclose(state.measurements["average"]["number"], 3, rtol=1e-6)

    theirs = optax.monitor({"norm": optax.tree.norm})
    first = theirs.init(params)
    _, later = theirs.update(params, first)
    assert jax.tree.structure(first) != jax.tree.structure(later)


def test_the_average_of_a_half_precision_measurement_does_not_stall():
    tx = gradtx.measure_with_ema(lambda u: u, 0.999, debias=False)
    g = jnp.ones(1, jnp.bfloat16)

    def step(state, _):
        return tx.update(g, state)[1], None

    state, _ = jax.lax.scan(step, tx.init(g), length=2000)
    np.testing.assert_allclose(state.ema, 1 - 0.999**2000, rtol=1e-4)
    stored = gradtx.measure_with_ema(lambda u: u, 0.9, accumulator_dtype=jnp.bfloat16)
    assert stored.init(jnp.ones(1)).ema.dtype == jnp.bfloat16


def test_a_transformation_among_the_measures_sees_params_and_extra_arguments():
    tx = gradtx.chain(
        gradtx.monitor({"step": gradtx.adamw(0.1), "scaled": gradtx.sgd(1.0)}), gradtx.sgd(0.5)
    )
    updates, state = tx.update(GRADIENTS[0], tx.init(PARAMS), PARAMS, learning_rate=2.0)
    adamw = gradtx.adamw(0.1)
    plain, _ = adamw.update(GRADIENTS[0], adamw.init(PARAMS), PARAMS, learning_rate=2.0)
    trees.assert_ulps(state[0].measurements["step"], plain, 4)
    assert_equal(updates, jax.tree.map(lambda g: -2 * g, GRADIENTS[0]))
    assert isinstance(state[0].measure_states[0], tuple)


def test_measurements_that_change_are_refused():
    for tx in (gradtx.snapshot("it", lambda u: u), gradtx.monitor({"it": lambda u: u})):
        state = tx.init({"a": jnp.ones(2)})
        with refused(ValueError, "'it'", "(3,)", "(2,)"):
            tx.update({"a": jnp.ones(3)}, state)
        with refused(ValueError, "'it'", "at init"):
            tx.update({"a": jnp.ones(2), "b": jnp.ones(2)}, state)


def test_masked_monitors_measure_what_they_see():
    tx = gradtx.masked(
        gradtx.snapshot("norm", gradtx.global_norm), {"a": False, "b": True, "c": False}
    )
    _, state = tx.update(PARAMS, tx.init(PARAMS))
    norm = state.inner_state.measurement["norm"]
    np.testing.assert_allclose(norm, jnp.linalg.norm(PARAMS["b"]), rtol=1e-6)
