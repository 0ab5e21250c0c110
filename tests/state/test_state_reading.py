"""What a state tells: the rate that was used, the count of steps, and measurements, by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from representatives import each_build
from test_conformance import step_of

import gradtx


def schedule(count):
    return 0.1 / (count + 1)


PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
TO_GROUPS = {"w": "slow", "b": "fast"}


def after(tx, steps=3, params=PARAMS, **extra):
    state = tx.init(params)
    for i in range(steps):
        _, state = tx.update(trees.like(params, i), state, params, **extra)
    return state


def told(state, reader=gradtx.hyperparams):
    return {name: float(x) for name, x in reader(state).items() if jnp.shape(x) == ()}


def near(wanted):
    return pytest.approx(wanted, rel=1e-6)


# ---- The learning rate ------------------------------------------------------------------------


@each_build
def test_every_optimizer_tells_its_rate_and_count(entry):
    """Under `jit`, inside of which the state is read, too."""
    tx = entry.make(**({} if entry.fixed_rate else {entry.rate: schedule}))
    params = {"w": trees.numbers((3, 2), 1), "b": trees.numbers((2,), 2)}

    @jax.jit
    def step(g, params, state):
        updates, state = step_of(entry, tx)(g, state, params)
        return gradtx.apply_updates(params, updates), state, gradtx.hyperparams(state)

    state = tx.init(params)
    for i in range(3):
        params, state, inside = step(trees.like(params, i), params, state)
    found = gradtx.hyperparams(state)
    assert found.keys() == inside.keys()
    if gradtx.tree.get(state, "step_sizes") is not None:  # every element has a rate of its own
        assert found == {}
        return
    rate = entry.probe[entry.rate] if entry.fixed_rate else schedule(2)
    groups = gradtx.tree.get(state, "inner_states", {"": None})
    if "learning_rate" in found:  # one for all groups
        groups = {"": None}
    for label in groups:
        prefix = f"{label}/" if label else ""
        np.testing.assert_allclose(found[f"{prefix}learning_rate"], rate, rtol=1e-6)
        np.testing.assert_allclose(inside[f"{prefix}learning_rate"], rate, rtol=1e-6)
        assert int(found[f"{prefix}count"]) == int(inside[f"{prefix}count"]) == 3
    for name, value in gradtx.metrics(state).items():
        assert jnp.shape(value) == (), name


def test_before_any_step_it_is_the_first_ones():
    assert told(gradtx.adam(schedule).init(PARAMS)) == near({"count": 0, "learning_rate": 0.1})


def test_a_rate_given_at_the_call_is_the_one_that_was_used():
    state = after(gradtx.chain(gradtx.clip(1.0), gradtx.adamw(0.1)), learning_rate=0.25)
    assert told(state) == {"count": 3, "learning_rate": 0.25}


RATE = {"count": 3, "learning_rate": schedule(2)}
AROUND = {
    "chain": lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
    "a chain of chains": lambda tx: gradtx.chain(gradtx.chain(gradtx.ema(0.9), tx)),
    "masked": lambda tx: gradtx.masked(tx, {"w": True, "b": False}),
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 1),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 5),
    "conditionally": lambda tx: gradtx.conditionally_transform(tx, lambda step: step < 9),
    "flatten": gradtx.flatten,
    "mechanize": gradtx.mechanize,
    "schedule_free": lambda tx: gradtx.contrib.schedule_free(tx, 0.1),
    "watch": gradtx.watch,
    "monitor": lambda tx: gradtx.chain(
        gradtx.monitor({"m": gradtx.measure_with_ema(gradtx.global_norm, 0.9)}), tx
    ),
    "optax": lambda tx: optax.chain(optax.clip(1.0), tx),
}


@pytest.mark.parametrize("name", AROUND)
def test_under_wrappers(name):
    found = told(after(AROUND[name](gradtx.adam(schedule))))
    assert {n: found[n] for n in RATE} == near(RATE)
    assert not any("#" in n or n.endswith("/count") for n in found)


def test_accumulation_counts_windows():
    state = after(gradtx.MultiSteps(gradtx.sgd(schedule), 2), 5)
    assert told(state) == near({"count": 2, "learning_rate": schedule(1)})
    assert told(state, gradtx.metrics) == {"mini_step": 1, "gradient_step": 2}


def test_lookahead_and_sam():
    pair = gradtx.LookaheadParams.init_synced(PARAMS)
    tx = gradtx.lookahead(gradtx.sgd(schedule), sync_period=2, slow_step_size=0.5)
    state = tx.init(pair)
    for _ in range(3):
        _, state = tx.update(PARAMS, state, pair)
    assert told(state) == near(RATE)
    assert told(state, gradtx.metrics) == {"steps_since_sync": 1}

    state = after(gradtx.contrib.sam(gradtx.sgd(schedule), gradtx.sgd(0.5), sync_period=2), 4)
    assert told(state) == near(
        {
            "count": 2,
            "learning_rate": schedule(1),
            "adv_state/count": 0,  # it begins anew after each descent
            "adv_state/learning_rate": 0.5,
        }
    )


def test_partitions_and_named_chains_give_names():
    parts = {"slow": gradtx.adamw(schedule), "fast": gradtx.sgd(0.5)}
    wanted = {"slow/count": 3, "slow/learning_rate": schedule(2)}
    wanted |= {"fast/count": 3, "fast/learning_rate": 0.5}
    tx = gradtx.partition(parts, TO_GROUPS)
    assert told(after(tx)) == near(wanted)
    assert told(after(gradtx.apply_if_finite(tx, 5))) == near(wanted)
    tx = gradtx.named_chain(("slow", parts["slow"]), ("fast", parts["fast"]))
    assert told(after(tx)) == near(wanted)
    assert told(after(optax.partition(parts, TO_GROUPS))) == near(wanted)
    nested = gradtx.named_chain(("net", gradtx.partition(parts, TO_GROUPS)))
    assert told(after(nested)) == near({f"net/{name}": x for name, x in wanted.items()})


def test_several_in_one_chain_are_numbered():
    found = told(after(gradtx.chain(gradtx.sgd(schedule), gradtx.sgd(0.5), gradtx.ema(0.9))))
    assert found == near({**RATE, "count#2": 3, "learning_rate#2": 0.5})


def test_what_is_injected_stands_for_what_is_within():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(schedule, momentum=0.9)
    assert told(after(tx)) == near({**RATE, "momentum": 0.9})
    tx = gradtx.inject_hyperparams(gradtx.sgd)(0.5)
    state = after(tx)
    state.hyperparams["learning_rate"] = jnp.float32(0.25)
    assert told(state) == {"count": 3, "learning_rate": 0.25}
    found = told(after(gradtx.chain(tx, gradtx.sgd(2.0))))
    assert found == {"count": 3, "learning_rate": 0.5, "count#2": 3, "learning_rate#2": 2.0}

    def grouped(learning_rate):
        parts = {"slow": gradtx.sgd(learning_rate), "fast": gradtx.sgd(2 * learning_rate)}
        return gradtx.partition(parts, TO_GROUPS)

    found = told(after(gradtx.inject_hyperparams(grouped)(0.5)))
    assert (found["learning_rate"], found["slow/learning_rate"]) == (0.5, 0.5)
    assert found["fast/learning_rate"] == 1.0


def test_states_of_optax_tell_what_they_hold():
    assert told(after(optax.adam(schedule))) == {"count": 3}
    assert told(after(optax.sgd(schedule))) == {"count": 3}
    found = told(after(optax.inject_hyperparams(optax.adam)(schedule)))
    assert found == near({**RATE, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0})
    assert "estim_lr" in told(after(optax.contrib.prodigy(0.1)))
    state = after(optax.apply_if_finite(optax.sgd(0.1), 5), 1)
    assert told(state, gradtx.metrics)["total_notfinite"] == 0
    assert told(after(optax.MultiSteps(optax.sgd(0.1), 2)), gradtx.metrics) == {
        "mini_step": 1,
        "gradient_step": 1,
    }


@pytest.mark.parametrize(
    "name, make",
    {
        "estim_lr": lambda: gradtx.prodigy(1.0),
        "estim_lr ": lambda: gradtx.dadapt_adamw(1.0),
        "max_distance": lambda: gradtx.dog(1.0),
        "max_squared_distance": lambda: gradtx.dowg(1.0),
        "mechanic_scales": lambda: gradtx.mechanize(gradtx.sgd(1.0)),
        "plateau_scale": lambda: gradtx.chain(gradtx.sgd(0.1), gradtx.reduce_on_plateau()),
        "lower_bound": lambda: gradtx.momo(0.1, lower_bound=-3.0),
        "max_learning_rate": lambda: gradtx.schedule_free_sgd(0.1),
    }.items(),
)
def test_estimates_of_methods(name, make):
    state = after(make(), 2, value=jnp.float32(1.0))
    found = gradtx.hyperparams(state)
    assert np.all(np.isfinite(found[name.strip()]))
    assert "learning_rate" in found and int(found["count"]) == 2


def test_a_line_search_tells_beside_the_rate():
    entry = gradtx.catalog.get("lbfgs")
    tx = entry.make()
    _, state = step_of(entry, tx)(trees.like(PARAMS), tx.init(PARAMS), PARAMS)
    found = told(state)
    assert found["learning_rate"] == 1.0 and found["count"] == 1
    assert found["scale_by_zoom_linesearch/learning_rate"] > 0
    assert {"loss", "num_linesearch_steps", "decrease_error"} <= set(gradtx.metrics(state))


def test_many_rates_at_once_are_told_together():
    rates = jnp.linspace(0.1, 1.6, 16)
    state = jax.vmap(lambda rate: gradtx.adam(rate).init(PARAMS))(rates)
    np.testing.assert_array_equal(gradtx.hyperparams(state)["learning_rate"], rates)


def test_trees_without_states_tell_nothing():
    for tree in ((), {"count": jnp.ones(())}, gradtx.identity().init(PARAMS)):
        assert gradtx.hyperparams(tree) == gradtx.metrics(tree) == {}


# ---- Measurements -----------------------------------------------------------------------------


def test_monitors_and_snapshots_tell_under_their_names():
    tx = gradtx.chain(
        gradtx.snapshot("before", gradtx.global_norm),
        gradtx.clip_by_global_norm(1.0),
        gradtx.monitor({"after": gradtx.global_norm, "both": lambda u: {"x": u["w"], "y": 1.0}}),
        gradtx.snapshot("before", gradtx.global_norm),
    )
    found = gradtx.metrics(after(tx))
    assert list(found) == ["before", "after", "both/x", "both/y", "before#2"]
    assert float(found["before"]) > 1 and float(found["after"]) == near(1.0)
    assert found["both/x"].shape == (3, 2)
    tx = gradtx.partition({"slow": tx, "fast": gradtx.sgd(0.1)}, {"w": "slow", "b": "slow"})
    assert "slow/before#2" in gradtx.metrics(after(tx))


def test_guards_tell():
    tx = gradtx.chain(gradtx.zero_nans(), gradtx.apply_if_finite(gradtx.sgd(0.1), 2))
    bad = {"w": jnp.full((3, 2), jnp.nan), "b": jnp.full(2, jnp.inf)}
    found = told(tx.update(bad, tx.init(PARAMS))[1], gradtx.metrics)
    assert found["found_nan/w"] == 1 and found["found_nan/b"] == 0
    assert found["notfinite_count"] == 1 and found["last_finite"] == 0
    tx = gradtx.MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=gradtx.skip_not_finite)
    found = told(tx.update(bad, tx.init(PARAMS))[1], gradtx.metrics)
    assert found == {"mini_step": 0, "gradient_step": 0, "num_not_finite": 8, "should_skip": 1}
