"""Hyperparameters in the state: readable, changeable, scheduled, and otherwise without effect."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from representatives import each_engine, each_entry
from trees import assert_ulps, avals, extras

import gradtx


def steps_of(tx, params, gradients, entry=None):
    def run(params, gradients):
        def step(carry, g):
            params, state = carry
            more = extras(entry, g, params) if entry else {}
            updates, state = tx.update(g, state, params, **more)
            return (gradtx.apply_updates(params, updates), state), updates

        return jax.lax.scan(step, (params, tx.init(params)), gradients)

    return jax.jit(run)(params, gradients)


def stacked(params, steps=10):
    return jax.tree.map(
        lambda *xs: jnp.stack(xs), *[trees.like(params, 10 * i) for i in range(steps)]
    )


@each_engine
@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", *(pytest.param(x, marks=pytest.mark.slow) for x in ("float32", "float16"))],
)
def test_nothing_changes(entry, dtype):
    """The wrapped optimizer takes the unwrapped one's steps; `1 - b` of a runtime float32 `b` has
    fewer digits than that of a constant, which is what the tolerance is for."""
    params = {"w": trees.numbers((3, 4), 1, dtype), "b": trees.numbers((4,), 2, dtype)}
    gradients = stacked(params)
    wrapped = gradtx.inject_hyperparams(entry.factory)(**entry.probe)
    _, plain_steps = steps_of(entry.make(), params, gradients, entry)
    _, steps = steps_of(wrapped, params, gradients, entry)
    for name in params:
        a, b = (np.asarray(x[name], np.float64) for x in (steps, plain_steps))
        assert np.isfinite(b).all()
        largest = np.max(np.abs(b), axis=tuple(range(1, b.ndim)), keepdims=True)
        eps = max(float(jnp.finfo(dtype).eps), 2e-5)
        assert np.all(np.abs(a - b) <= 2 * eps * largest)


@pytest.mark.slow
@each_entry
def test_nothing_changes_in_float64(entry, x64):
    params = {"w": trees.numbers((3, 4), 1, jnp.float64)}
    gradients = stacked(params)
    wrapped = gradtx.inject_hyperparams(entry.factory)(**entry.probe)
    _, plain_steps = steps_of(entry.make(), params, gradients, entry)
    _, steps = steps_of(wrapped, params, gradients, entry)
    largest = np.max(np.abs(plain_steps["w"]))  # a sum that cancels keeps the terms' rounding
    np.testing.assert_allclose(steps["w"], plain_steps["w"], rtol=1e-12, atol=1e-15 * largest)


@each_engine
def test_the_state_is_a_fixed_point_and_init_can_be_jitted(entry):
    params = {"w": trees.numbers((3, 4), 1, jnp.bfloat16), "b": trees.numbers((4,), 2)}
    tx = gradtx.inject_hyperparams(entry.factory)(**entry.probe)
    state = tx.init(params)
    assert avals(jax.jit(tx.init)(params)) == avals(state)
    assert avals(jax.eval_shape(tx.init, params)) == avals(state)
    g = trees.like(params)
    _, new = tx.update(g, state, params, **extras(entry, g, params))
    assert avals(new) == avals(state)
    assert all(x.dtype == jnp.float32 for x in state.hyperparams.values())
    floats = [n for n, x in entry.hyperparameters.items() if isinstance(x, float)]
    assert set(floats) <= set(state.hyperparams)


def test_changes_take_effect_without_compiling_again():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.5, momentum=0.0)
    traced = []

    @jax.jit
    def step(g, state):
        traced.append(1)
        return tx.update(g, state)

    state = tx.init(jnp.zeros(()))
    updates, state = step(jnp.ones(()), state)
    assert float(updates) == -0.5
    state.hyperparams["learning_rate"] = jnp.float32(0.25)
    state.hyperparams["momentum"] = jnp.float32(1.0)
    updates, state = step(jnp.ones(()), state)
    assert float(updates) == -0.5  # 0.25 * (1 + 1)
    assert float(state.hyperparams["learning_rate"]) == 0.25
    assert len(traced) == 1
    state.hyperparams["learning_rate"] = 1  # Python numbers do too
    updates, state = tx.update(jnp.ones(()), state)
    assert float(updates) == -3.0 and state.hyperparams["learning_rate"].dtype == jnp.float32


def test_eager_steps_compile_once():
    tx = gradtx.inject_hyperparams(gradtx.adamw)(learning_rate=0.5)
    params = trees.small()
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state, params)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        listen := lambda event, _, **kwargs: compiled.append(event)
    )
    try:
        state.hyperparams["b1"] = jnp.float32(0.5)
        _, state = tx.update(params, state, params)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "trace" in event]


def test_schedules_see_0_first_and_their_last_value_is_in_the_state():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(lambda count: 1.0 + count, momentum=None)
    state = tx.init(jnp.zeros(()))
    assert float(state.hyperparams["learning_rate"]) == 1.0
    for i in range(3):
        updates, state = tx.update(jnp.ones(()), state)
        assert float(updates) == -(1.0 + i)
        assert float(state.hyperparams["learning_rate"]) == 1.0 + i
        assert int(state.count) == i + 1
        # A scheduled value is the schedule's: what is written over it has no effect.
        state.hyperparams["learning_rate"] = jnp.float32(100.0)


class Halving:
    """A schedule that remembers: halves when the loss does not fall."""

    class State(NamedTuple):
        rate: jax.Array
        best: jax.Array

    def init(self):
        return self.State(jnp.float32(1.0), jnp.float32(jnp.inf))

    def update(self, state, *, value, **extra):
        rate = jnp.where(value < state.best, state.rate, state.rate / 2)
        return self.State(rate, jnp.minimum(state.best, value))

    def __call__(self, state, **extra):
        return state.rate


def test_schedules_may_have_a_memory():
    assert isinstance(Halving(), gradtx.schedules.StatefulSchedule)
    tx = gradtx.inject_hyperparams(gradtx.sgd)(Halving())
    state, update, rates = tx.init(jnp.zeros(())), jax.jit(tx.update), []
    first = state
    for value in (3.0, 3.0, 2.0, 5.0, 1.0):
        _, state = update(jnp.ones(()), state, value=jnp.float32(value))
        rates.append(float(state.hyperparams["learning_rate"]))
        assert avals(state) == avals(first)
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert float(state.hyperparams_states["learning_rate"].best) == 1.0


def test_what_stays_as_it_is():
    def factory(rate, k: int = 3, seed: int | None = None, flag=True, mode="x", dtype=None, f=abs):
        assert type(k) is int and type(seed) is int and flag is True and mode == "y"
        assert dtype is jnp.bfloat16 and f is abs
        return gradtx.scale(rate)

    tx = gradtx.inject_hyperparams(factory)(2, seed=1, mode="y", dtype=jnp.bfloat16)
    state = tx.init(jnp.zeros(()))
    assert list(state.hyperparams) == ["rate"]
    assert float(tx.update(jnp.ones(()), state)[0]) == 2.0


def test_static_arguments():
    mask = functools.partial(jax.tree.map, lambda x: x.ndim > 1)
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    tx = gradtx.inject_hyperparams(gradtx.adamw, static_args=("mask", "b1"))(0.1, mask=mask)
    state = tx.init(params)
    assert "b1" not in state.hyperparams and "b2" in state.hyperparams
    _, new = tx.update(params, state, params)
    assert avals(new) == avals(state)
    with pytest.raises(ValueError, match=r"got \['lr'\] for sgd\(learning_rate, momentum"):
        gradtx.inject_hyperparams(gradtx.sgd, static_args="lr")
    with pytest.raises(TypeError, match=r"mask of adamw was used as a schedule.*static_args"):
        gradtx.inject_hyperparams(gradtx.adamw)(0.1, mask=lambda tree: {"w": True}).init(params)


def test_arrays_keep_their_dtype_and_many_rates_can_be_one_program():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=jnp.float16(0.5))
    assert tx.init(jnp.zeros(2)).hyperparams["learning_rate"].dtype == jnp.float16
    wide = gradtx.inject_hyperparams(gradtx.sgd, hyperparam_dtype=jnp.bfloat16)(0.5)
    assert wide.init(jnp.zeros(2)).hyperparams["learning_rate"].dtype == jnp.bfloat16

    tx = gradtx.inject_hyperparams(gradtx.adam)(0.0)
    state = tx.init(jnp.zeros(()))

    def first_step(rate):
        state.hyperparams["learning_rate"] = rate
        return tx.update(jnp.ones(()), state)[0]

    rates = jnp.array([0.1, 0.2, 0.4])
    assert_ulps(jax.vmap(first_step)(rates), -rates, 4)


def test_extra_arguments_pass():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(0.1)
    updates, _ = tx.update(jnp.ones(()), tx.init(jnp.zeros(())), learning_rate=0.5)
    assert float(updates) == -0.5
