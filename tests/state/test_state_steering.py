"""Steering a run: the learning rate at the call, under whatever stands around the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from test_conformance import counted_traces, each_entry, step_of
from trees import assert_equal, assert_ulps

import gradtx

PARAMS = {"w": trees.numbers((3, 2), 1)}
G = trees.like(PARAMS, 5)


def wrapped(tx):
    """A chain in a partition in a guard in an accumulation."""
    chained = gradtx.chain(gradtx.identity(), tx)
    grouped = gradtx.partition({"all": chained, "none": gradtx.sgd(0.1)}, {"w": "all"})
    return gradtx.MultiSteps(gradtx.apply_if_finite(grouped, 5), 1).gradient_transformation()


@pytest.mark.slow
@each_entry
def test_the_rate_at_the_call_overrides(entry):
    """By the rate that another one is built with, wrapped alike; traced once for all rates."""
    rate = {**entry.hyperparameters, **entry.probe}[entry.rate]
    tx, traced = wrapped(entry.make()), []

    @jax.jit
    def step(state, rate):
        traced.append(1)
        other = wrapped(entry.make(**{entry.rate: rate}))
        wanted, _ = step_of(entry, other)(G, other.init(PARAMS), PARAMS)
        updates, new = step_of(entry, tx)(G, state, PARAMS, learning_rate=rate)
        return updates, wanted, new

    state = tx.init(PARAMS)
    for x in (0.5 * rate, 0.25 * rate):
        updates, wanted, new = step(state, jnp.float32(x))
        if gradtx.tree.get(new, "step_sizes") is not None:
            continue  # the rate is only where each element's own begins
        assert_ulps(updates, wanted, 16, of_largest=True)
        told = gradtx.hyperparams(new)
        labels = gradtx.tree.get(
            new.inner_opt_state.inner_state.inner_states["all"], "inner_states"
        )
        for label in labels or [""]:
            name = "/".join(filter(None, ("all", label, "learning_rate")))
            np.testing.assert_allclose(told[name], x, rtol=1e-6)
    assert len(traced) == 1


def test_a_schedule_goes_on_after_an_override():
    tx = gradtx.sgd(lambda count: 1.0 / (count + 1))
    state, steps = tx.init(jnp.zeros(())), []
    for extra in ({}, {"learning_rate": 7.0}, {}):
        updates, state = tx.update(jnp.ones(()), state, **extra)
        steps.append(-float(updates))
    np.testing.assert_allclose(steps, [1.0, 7.0, 1 / 3], rtol=1e-6)


def test_sixteen_rates_are_one_program():
    """Built from a traced rate, wrapped, under `vmap` and `jit`; counted by what JAX compiles."""

    @jax.jit
    def train(rates):
        def run(rate):
            tx = wrapped(gradtx.adamw(rate))
            state, params = tx.init(PARAMS), PARAMS
            for _ in range(2):
                updates, state = tx.update(G, state, params)
                params = gradtx.apply_updates(params, updates)
            return params, gradtx.hyperparams(state)["all/learning_rate"]

        return jax.vmap(run)(rates)

    compiled = []

    def listen(event, seconds, **kwargs):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    rates = jnp.linspace(0.01, 0.16, 16)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with trees.checking_leaks():
            params, told = train(rates)
        train(2 * rates)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) <= 1 + 1  # the program, and the one that doubles the rates
    assert_equal(told, rates)
    one = train(rates[3:4])[0]
    assert_ulps(jax.tree.map(lambda x: x[3], params), jax.tree.map(lambda x: x[0], one), 4)


def test_the_slope_by_a_rate_passes_through_wrappers():
    def loss(rate):
        tx = wrapped(gradtx.sgd(rate))
        updates, _ = tx.update(G, tx.init(PARAMS), PARAMS)
        return sum(jnp.sum(u) for u in jax.tree.leaves(updates))

    total = sum(float(jnp.sum(g)) for g in jax.tree.leaves(G))
    np.testing.assert_allclose(jax.grad(loss)(0.3), -total, rtol=1e-6)


@pytest.mark.parametrize("around", [lambda tx: tx, wrapped], ids=["plain", "wrapped"])
def test_any_other_hyperparameter_can_be_made_a_runtime_value(around):
    """Set in the state, found by name wherever it stands; nothing is traced for another value."""
    tx = around(gradtx.inject_hyperparams(gradtx.adamw)(0.1, b1=0.9))
    step = jax.jit(lambda state: tx.update(G, state, PARAMS))
    state = gradtx.tree.set(tx.init(PARAMS), b1=0.5, weight_decay=0.25)
    step(state)
    with counted_traces() as traced:
        state = gradtx.tree.set(state, b1=0.75)
        updates, state = step(state)
    assert traced == []
    other = around(gradtx.adamw(0.1, b1=0.75, weight_decay=0.25))
    assert_ulps(updates, other.update(G, other.init(PARAMS), PARAMS)[0], 8, of_largest=True)
    told = gradtx.hyperparams(state)
    (name,) = [n for n in told if n.endswith("b1")]
    assert float(told[name]) == 0.75
