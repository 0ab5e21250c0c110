"""Schedule-free learning, beyond what all optimizers are tested for."""

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

PARAMS = trees.small()
GRADIENTS = [trees.like(PARAMS, i) for i in range(4)]
BOTH = ["schedule_free_sgd", "schedule_free_adamw"]


def points(tx, gradients, start):
    """The paper's three sequences, after each step."""
    state, y = tx.init(start), start
    update, found = jax.jit(tx.update), []
    for g in gradients:
        updates, state = update(g, state, y)
        y = y + updates
        found.append((gradtx.schedule_free_eval_params(state, y), y, state.z))
    return [np.stack(column) for column in zip(*found, strict=True)]


# ---- The average -------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 2.0])
@pytest.mark.parametrize("b1", [0.1, 0.9, 1.0])
def test_evaluation_is_at_the_weighted_mean_of_all_points(power, b1, x64):
    def rate(count):
        return 0.1 * (1 + count % 3)

    gradients = [trees.numbers((3,), i, jnp.float64) for i in range(12)]
    tx = gradtx.schedule_free(gradtx.sgd(rate), rate, b1, power)
    x, y, z = points(tx, gradients, jnp.ones(3))
    largest = np.maximum.accumulate([rate(t) for t in range(12)])
    for t in range(12):
        weights = largest[: t + 1] ** power
        np.testing.assert_allclose(x[t], np.average(z[: t + 1], axis=0, weights=weights), rtol=1e-9)
        np.testing.assert_allclose(y[t], b1 * x[t] + (1 - b1) * z[t], rtol=1e-9)
    descent = 1 - np.cumsum([rate(t) * g for t, g in enumerate(gradients)], axis=0)
    np.testing.assert_allclose(z, descent, rtol=1e-12)


def test_the_average_comes_closer_than_the_points_that_it_averages():
    """To the least of a sum of distances, around which descent goes on circling."""

    def loss(p):
        return jnp.sum(jnp.abs(p - 3.0))

    tx, start = gradtx.schedule_free_sgd(0.5), jnp.array([1.05, 0.0])

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(jax.grad(loss)(p), state, p)
        return (p + updates, state), loss(state.z)

    train = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=2000))
    (p, state), losses = train(start)
    x = gradtx.schedule_free_eval_params(state, p)
    assert loss(x) < 0.02 * jnp.mean(losses[-100:])


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "lion", "sm3"])
def test_around_other_optimizers(name, x64):
    """`z` moves as they do by themselves, along gradients that are given."""
    entry = gradtx.catalog.get(name)
    inner, start = entry.make(), jnp.ones(3)
    gradients = [trees.numbers((3,), i, jnp.float64) for i in range(5)]
    tx = gradtx.schedule_free(inner, entry.probe["learning_rate"])
    _, _, z = points(tx, gradients, start)
    if "weight_decay" not in entry.hyperparameters:  # which looks at `y`
        np.testing.assert_allclose(z[-1], walk(inner, start, gradients)[2], rtol=1e-12)
    theirs = optax.contrib.schedule_free(
        getattr(optax, name)(**entry.probe), entry.probe["learning_rate"]
    )
    np.testing.assert_allclose(
        walk(tx, start, gradients)[2], walk(theirs, start, gradients)[2], rtol=1e-10
    )


def test_the_optimizer_of_optax_is_as_good():
    tx, p = gradtx.schedule_free(optax.adagrad(0.1), 0.1), jnp.ones(3, jnp.bfloat16)
    state = tx.init(p)
    updates, new = tx.update(p, state, p)
    assert avals(new) == avals(state) and updates.dtype == jnp.bfloat16


# ---- Where it is right and optax isn't ---------------------------------------------------------


def weights_of(library, rate, steps):
    """The weights of the average that follow from the sums in the state."""
    tx = library.schedule_free(gradtx.sgd(rate), rate, weight_lr_power=1.0)
    p = jnp.ones(2)
    state, sums = tx.init(p), [0.0]
    for _ in range(steps):
        _, state = tx.update(p, state, p)
        sums.append(float(state.weight_sum))
    return np.diff(sums)


def test_weights_are_by_the_rate_of_the_step_where_optax_takes_that_of_the_next(x64):
    def rate(count):
        return 0.1 * (count + 1)

    np.testing.assert_allclose(weights_of(gradtx, rate, 4), [0.1, 0.2, 0.3, 0.4], rtol=1e-12)
    np.testing.assert_allclose(weights_of(optax.contrib, rate, 4), [0.2, 0.3, 0.4, 0.5], rtol=1e-12)


@pytest.mark.parametrize("name", BOTH)
def test_the_first_step_of_a_warm_up_is_taken_where_optax_stands_still(name, x64):
    p = jnp.ones(2)
    ours, theirs = (
        walk(getattr(library, name)(0.5, warmup_steps=4), p, [p])[0]
        for library in (gradtx, optax.contrib)
    )
    np.testing.assert_allclose(ours, -0.5 / 4, rtol=1e-7)  # sqrt(1) + eps
    assert_equal(theirs, jnp.zeros(2))
    tx = getattr(gradtx, name)(0.5, warmup_steps=4)
    state, rates = tx.init(p), []
    for _ in range(6):
        _, state = tx.update(p, state, p)
        rates.append(float(gradtx.tree.get(state, "learning_rate")))
    np.testing.assert_allclose(rates, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5], rtol=1e-12)


@pytest.mark.parametrize("name", BOTH)
def test_b1_of_zero_is_the_optimizer_alone_where_optax_has_nan(name, x64):
    gradients = [trees.numbers((3,), i, jnp.float64) for i in range(5)]
    start = jnp.ones(3)
    alone = {
        "schedule_free_sgd": gradtx.sgd(0.1),
        "schedule_free_adamw": gradtx.rmsprop(
            0.1, decay=0.999, eps=1e-8, eps_in_sqrt=False, bias_correction=True
        ),
    }[name]
    ours, state, end = walk(getattr(gradtx, name)(0.1, b1=0.0), start, gradients)
    np.testing.assert_allclose(end, walk(alone, start, gradients)[2], rtol=1e-12)
    theirs, _, _ = walk(getattr(optax.contrib, name)(0.1, b1=0.0), start, gradients)
    assert bool(jnp.all(jnp.isnan(theirs))) and not bool(jnp.any(jnp.isnan(ours)))
    with refused(ValueError, "schedule_free_eval_params", "b1 must not be 0"):
        gradtx.schedule_free_eval_params(state, end)
    jax.jit(gradtx.schedule_free_eval_params)(state, end)  # what is traced cannot be looked at


def test_half_precision_goes_on_where_optax_stands_still():
    """Steps of 1/1000 from 1 are lost in bfloat16, and so is the sum of their weights."""
    p, g = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.bfloat16)

    def end(library):
        tx = library.schedule_free_sgd(1e-3)

        def step(state, _):
            return tx.update(g, state, p)[1], None

        return jax.jit(lambda: jax.lax.scan(step, tx.init(p), length=300)[0])()

    ours, theirs = end(gradtx), end(optax.contrib)
    np.testing.assert_allclose(ours.z, 0.7, rtol=1e-4)
    np.testing.assert_allclose(ours.weight_sum, 300e-6, rtol=1e-5)
    assert_equal(theirs.z, p)  # it has not moved
    assert theirs.b1 == 0.8984375 and ours.b1 == np.float32(0.9)


# ---- States ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_the_state_has_the_names_that_optax_has(name):
    ours, theirs = (getattr(x, name)().init(PARAMS) for x in (gradtx, optax.contrib))
    assert ours._fields == theirs._fields
    for field in ("b1", "weight_sum", "max_lr", "z"):
        assert_equal(getattr(ours, field), getattr(theirs, field))
    assert int(ours.step_count) == 0
    _, state, _ = walk(getattr(gradtx, name)(), PARAMS, GRADIENTS[:3])
    assert int(state.step_count) == 3 == int(gradtx.tree.get(state, "count"))
    found = gradtx.schedule_free_eval_params(state, PARAMS)
    assert_ulps(optax.contrib.schedule_free_eval_params(state, PARAMS), found, 8, of_largest=True)


@pytest.mark.parametrize("params", ["float32", "bfloat16", "complex64"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "complex64", None])
def test_z_is_stored_as_asked(params, stored):
    p = trees.numbers((4,), 1, params)
    tx = gradtx.schedule_free_sgd(0.1, state_dtype=stored)
    if params == "complex64" and stored in ("float32", "bfloat16"):
        with refused(
            TypeError, "schedule_free_sgd", "params", "complex64", f"state_dtype={stored}"
        ):
            tx.init(p)
        return
    state = tx.init(p)
    assert state.z.dtype == (stored or {"bfloat16": "float32"}.get(params, params))
    update = jax.jit(tx.update)
    for i in range(3):
        updates, new = update(trees.numbers((4,), i, params), state, p)
        assert avals(new) == avals(state) and updates.dtype == params
        p, state = p + updates, new
    assert gradtx.schedule_free_eval_params(state, p).dtype == params


def test_a_narrow_z_stays_what_is_averaged():
    """Its roundings are a part of its steps, so that the average does not part from it."""
    tx, p = gradtx.schedule_free_sgd(0.01, state_dtype=jnp.bfloat16), jnp.ones(3)
    state, seen = tx.init(p), []
    for i in range(20):
        updates, state = tx.update(trees.numbers((3,), i), state, p)
        p = p + updates
        seen.append(np.asarray(state.z, np.float64))
    x = gradtx.schedule_free_eval_params(state, p)
    np.testing.assert_allclose(x, np.mean(seen, axis=0), rtol=1e-5)


@pytest.mark.parametrize("around", ["chain", "partition", "masked", "steps", "inject", "dict"])
def test_the_average_is_found_in_other_states(around):
    inner = gradtx.schedule_free_adamw(0.1)
    labels = {"a": "x", "b": "y", "c": {"d": "z"}}
    parts = {"x": inner, "y": gradtx.schedule_free_sgd(0.2), "z": gradtx.sgd(0.1)}
    mask = {"a": True, "b": True, "c": {"d": False}}
    tx = {
        "chain": gradtx.chain(gradtx.clip(1.0), inner),
        "partition": gradtx.partition(parts, labels),
        "masked": gradtx.masked(inner, mask),
        "steps": gradtx.MultiSteps(inner, 1),
        "inject": gradtx.inject_hyperparams(gradtx.schedule_free_adamw)(learning_rate=0.1),
        "dict": inner,
    }[around]
    _, state, params = walk(tx, PARAMS, GRADIENTS)
    found = gradtx.schedule_free_eval_params({"it": state} if around == "dict" else state, params)
    wanted = dict(params)
    for name, part in (("a", parts["x"]), ("b", parts["y"] if around == "partition" else inner)):
        gradients = [g[name] for g in GRADIENTS]
        if around == "chain":
            gradients = [jnp.clip(g, -1, 1) for g in gradients]
        _, alone, p = walk(part, PARAMS[name], gradients)
        wanted[name] = gradtx.schedule_free_eval_params(alone, p)
    if around in ("partition", "masked"):
        assert_equal(found["c"], params["c"])
    assert_ulps(found["a"], wanted["a"], 8, of_largest=True)
    assert_ulps(found["b"], wanted["b"], 8, of_largest=True)
    assert not np.allclose(found["a"], params["a"])


def test_the_rate_at_the_call_is_that_of_steps_and_weights(x64):
    rates = [0.1, 0.3, 0.2]
    p = jnp.ones(2)
    by_schedule = gradtx.schedule_free_sgd(lambda count: jnp.asarray(rates)[count])
    given = gradtx.schedule_free_sgd(7.0)
    q, state = p, given.init(p)
    for rate in rates:
        updates, state = given.update(p, state, q, learning_rate=rate)
        q = q + updates
    np.testing.assert_allclose(q, walk(by_schedule, p, [p] * 3)[2], rtol=1e-12)
    np.testing.assert_allclose(state.weight_sum, 0.01 + 0.09 + 0.09, rtol=1e-12)
    np.testing.assert_allclose(state.max_lr, 0.3)


# ---- What cannot be right ----------------------------------------------------------------------


def test_what_cannot_be_right_is_refused():
    for b1 in (-0.1, 1.5):
        with refused(ValueError, "schedule_free", f"b1 must be in [0, 1], got {b1}"):
            gradtx.schedule_free_sgd(b1=b1)
    with refused(
        ValueError, "schedule_free_adamw", "warmup_steps must be finite and not negative, got -1"
    ):
        gradtx.schedule_free_adamw(warmup_steps=-1)
    with refused(
        TypeError, "schedule_free_sgd", "state_dtype must be a floating dtype or None, got int8"
    ):
        gradtx.schedule_free_sgd(state_dtype=jnp.int8).init(PARAMS)
    state = gradtx.adam(0.1).init(PARAMS)
    with refused(ValueError, "schedule_free_eval_params", "b1 and z", "tuple"):
        gradtx.schedule_free_eval_params(state, PARAMS)
    state = gradtx.schedule_free_sgd().init(PARAMS)
    with refused(ValueError, "schedule_free_eval_params", "state.z", "params['d']"):
        gradtx.schedule_free_eval_params(state, {**PARAMS, "d": jnp.ones(2)})
    with refused(ValueError, "schedule_free_eval_params", "params['b']", "(2,)", "(3,)"):
        gradtx.schedule_free_eval_params(state, {**PARAMS, "b": jnp.ones(2)})


def test_weights_follow_the_estimate_of_the_learning_rate(x64):
    """Prodigy's estimate at each step times the rate, as its steps are."""
    base = gradtx.chain(gradtx.clip_by_global_norm(10.0), gradtx.prodigy(betas=(0.0, 0.99)))
    tx, p = gradtx.schedule_free(base, 0.5, b1=0.9), jnp.array([3.0, -2.0])
    state, rates = tx.init(p), []
    z, x = np.asarray(p), np.asarray(p)
    step = jax.jit(tx.update)
    for _ in range(60):
        rates.append(0.5 * float(state.base_optimizer_state[1].estim_lr))
        updates, state = step(2 * p, state, p)
        p = p + updates
        c = rates[-1] ** 2 / np.sum(np.square(rates))
        z = np.asarray(state.z)
        x = (1 - c) * x + c * z
        np.testing.assert_allclose(p, 0.1 * z + 0.9 * x, rtol=1e-10)
    assert rates[-1] > 1e3 * rates[0]
    np.testing.assert_allclose(gradtx.averaged_params(state, p), x, rtol=1e-10)
    np.testing.assert_allclose(state.max_lr, rates[-1])
