"""States of optax's layout: those written by hand, those of optax, and those that are asked for."""

import json
import pathlib
import pickle
from typing import NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint
import pytest
from representatives import each, engines_of, first, first_of_each
from trees import assert_equal, avals, extras, like, numbers

import gradtx
import gradtx.contrib
from gradtx import catalog
from gradtx.crosschecking import factory_of, known_differences, settings
from gradtx.schedules import inject
from gradtx.state import layout

API = json.loads((pathlib.Path(__file__).parents[1] / "peer" / "optax_api.json").read_text())
PARAMS = {"w": numbers((4, 3), 1), "b": numbers((3,), 2)}
HALF = {"w": numbers((4, 3), 1), "b": numbers((3,), 2, jnp.bfloat16)}


def falling(count):
    return 0.05 * 0.5 ** (count / 4)


# ---- The classes ------------------------------------------------------------------------------


def _classes():
    """The public classes of optax's states, by module and name, with their fields."""
    for module, names in API["modules"].items():
        for name, found in names.items():
            if found["kind"] == "namedtuple" and name.endswith("State"):
                yield pytest.param(module, name, found, id=f"{module}.{name}".lstrip("."))


@pytest.mark.parametrize(("module", "name", "known"), list(_classes()))
def test_states_are_made_of_the_fields_of_optax(module, name, known):
    """By position and by name; additions come last, and have defaults."""
    state = gradtx
    for part in [*filter(None, module.split(".")), name]:
        state = getattr(state, part)
    fields, values = known["fields"], [*range(len(known["fields"]))]
    for made in (state(*values), state(**dict(zip(fields, values, strict=True)))):
        assert [getattr(made, f) for f in fields] == values
        assert made[: len(values)] == tuple(values)
        assert all(x is None for x in made[len(values) :])
    required = [f for f in state._fields if f not in state._field_defaults]
    assert required == [f for f in fields if f not in known["defaults"]]


def test_the_state_of_a_learning_rate_is_that_of_a_schedule():
    state = gradtx.adam(falling).init(PARAMS)[-1]
    assert isinstance(state, gradtx.ScaleByScheduleState)
    assert state.count == 0 and state.learning_rate == jnp.float32(0.05)
    assert pickle.loads(pickle.dumps(state)) == state


# ---- The layout of optax ----------------------------------------------------------------------


def described(state):
    """The classes, fields, shapes and dtypes of a state, by their names."""
    if hasattr(state, "_fields"):
        return type(state).__name__, {f: described(getattr(state, f)) for f in state._fields}
    if isinstance(state, dict):
        return {key: described(x) for key, x in state.items()}
    if isinstance(state, (tuple, list)):
        return type(state), [described(x) for x in state]
    return (state.shape, state.dtype) if hasattr(state, "dtype") else state


def as_ours(state):
    """A state of optax in classes of gradtx with the same names."""
    if hasattr(state, "_fields"):
        name = type(state).__name__
        modules = (gradtx, gradtx.contrib, layout, inject)
        (kind, *_) = [getattr(m, name) for m in modules if hasattr(m, name)]
        return kind(**{f: as_ours(getattr(state, f)) for f in state._fields})
    if isinstance(state, dict):
        return {key: as_ours(x) for key, x in state.items()}
    if isinstance(state, (tuple, list)):
        return type(state)(map(as_ours, state))
    return state


def both(entry):
    """Whether both libraries have an optimizer, with slots of the same shapes."""
    other_shapes = "projects the longer side" in known_differences(entry.name).always
    return factory_of(optax, entry.name) is not None and not other_shapes


BOTH = [entry for entry in catalog.entries() if both(entry)]
each_entry = each(BOTH)
each_engine = each(first_of_each(engines_of, BOTH))


def makers(entry):
    """The optimizer in both libraries, at a constant rate and, if possible, at a schedule."""
    peer = factory_of(optax, entry.name)
    fixed = entry.fixed_rate or entry.rate in known_differences(entry.name).refuses
    for change in [{}] if fixed else [{}, {entry.rate: falling}]:
        setting = {**entry.probe, **change}
        yield peer(**setting), entry.factory(**setting)


WRAPPERS = {
    "accumulated": lambda lib: lib.MultiSteps(lib.adam(0.1), 2),
    "guarded": lambda lib: lib.apply_if_finite(lib.adamw(0.1), 3),
    "injected": lambda lib: lib.inject_hyperparams(lib.adam)(0.1),
    "injected schedule": lambda lib: lib.inject_hyperparams(lib.adamw)(falling),
    "masked": lambda lib: lib.masked(lib.adam(0.1), {"w": True, "b": False}),
    "partitioned": lambda lib: lib.partition(
        {"a": lib.adam(0.1), "s": lib.sgd(falling, momentum=0.9)}, {"w": "a", "b": "s"}
    ),
    "flattened": lambda lib: lib.flatten(lib.adam(0.1)),
    "chained": lambda lib: lib.chain(lib.clip(1.0), lib.adamw(falling)),
    "named": lambda lib: lib.named_chain(("clip", lib.clip(1.0)), ("adam", lib.adam(0.1))),
    "conditional": lambda lib: lib.conditionally_transform(lib.adam(0.1), lambda *_: True),
    "scheduled decay": lambda lib: lib.add_decayed_weights(falling),
    "rms": lambda lib: lib.scale_by_rms(),
    "rms, corrected": lambda lib: lib.scale_by_rms(bias_correction=True),
    "stddev, corrected": lambda lib: lib.scale_by_stddev(bias_correction=True),
    "sam": lambda lib: lib.contrib.sam(lib.adam(0.1), lib.sgd(0.1)),
    "schedule-free": lambda lib: lib.contrib.schedule_free(lib.adam(0.1, b1=0.0), 0.1),
    "mechanized": lambda lib: lib.contrib.mechanize(lib.adam(0.1)),
    "split": lambda lib: lib.contrib.split_real_and_imaginary(lib.adam(0.1)),
}
each_wrapper = pytest.mark.parametrize("name", WRAPPERS)


@pytest.mark.parametrize(
    "params", list(first([pytest.param(HALF, id="half"), pytest.param(PARAMS, id="single")]))
)
@each_entry
def test_the_layout_of_optax(entry, params):
    for theirs, ours in makers(entry):
        tx = gradtx.optax_layout(ours)
        state = tx.init(params)
        assert described(state) == described(theirs.init(params))
        assert avals(jax.eval_shape(tx.init, params)) == avals(state)
        assert_equal(pickle.loads(pickle.dumps(state)), state)


@pytest.mark.slow
@each_entry
def test_the_layout_of_optax_at_every_setting(entry):
    refused = {f"{name}=schedule" for name in known_differences(entry.name).refuses}
    for label, setting in settings(entry):
        if label in refused:
            continue
        theirs, ours = (f(**setting) for f in (factory_of(optax, entry.name), entry.factory))
        assert described(gradtx.optax_layout(ours).init(PARAMS)) == described(theirs.init(PARAMS))


@pytest.mark.parametrize(
    "make",
    [
        lambda lib: lib.adafactor(),
        lambda lib: lib.adafactor(0.1, clipping_threshold=None, multiply_by_parameter_scale=False),
        lambda lib: lib.adafactor(falling, momentum=0.9, weight_decay_rate=0.1),
        lambda lib: lib.sgd(falling),
        lambda lib: lib.rmsprop(0.1, momentum=0.9, bias_correction=True),
        lambda lib: lib.contrib.schedule_free_sgd(0.1, weight_decay=0.1),
    ],
)
def test_the_layout_with_and_without_optional_parts(make):
    assert described(gradtx.optax_layout(make(gradtx)).init(PARAMS)) == described(
        make(optax).init(PARAMS)
    )


@each_wrapper
def test_the_layout_of_wrappers(name):
    theirs, ours = (WRAPPERS[name](lib) for lib in (optax, gradtx))
    assert described(gradtx.optax_layout(ours).init(PARAMS)) == described(theirs.init(PARAMS))


def test_a_chosen_dtype_stays():
    for dtype in (jnp.float32, jnp.bfloat16):
        theirs, ours = (lib.adam(0.1, mu_dtype=dtype) for lib in (optax, gradtx))
        assert described(gradtx.optax_layout(ours).init(HALF)) == described(theirs.init(HALF))


def run(tx, entry, state, steps=3, params=PARAMS):
    """The parameters and the state after some steps, jitted."""

    @jax.jit
    def step(gradient, state, params):
        more = extras(entry, gradient, params) if entry else {}
        updates, state = tx.update(gradient, state, params, **more)
        return gradtx.apply_updates(params, updates), state

    for number in range(steps):
        params, state = step(like(params, 100 * number), state, params)
    return params, state


def with_values(state, other):
    """A state with the leaves of another that has the same names."""
    known = gradtx.state_dict(other)
    return gradtx.load_matching(state, known)[0]


@each_engine
def test_states_of_optax_are_gone_on_with(entry):
    """The steps are those from the own state, and the layout is that which was given."""
    for theirs, tx in makers(entry):
        given = as_ours(theirs.init(PARAMS))
        start = with_values(tx.init(PARAMS), given)
        wanted, _ = run(tx, entry, start)
        reached, last = run(tx, entry, given)
        assert_equal(reached, wanted)
        assert described(last) == described(given)
        lean = gradtx.optax_layout(tx)
        reached, last = run(lean, entry, with_values(lean.init(PARAMS), given))
        assert_equal(reached, wanted)
        assert described(last) == described(theirs.init(PARAMS))


@each_engine
def test_half_precision_states_stay_so(entry):
    for theirs, tx in makers(entry):
        _, last = run(tx, entry, gradtx.optax_layout(tx).init(HALF), params=HALF)
        assert described(last) == described(theirs.init(HALF))


@each_wrapper
def test_wrappers_go_on_with_the_layout_that_they_are_given(name):
    theirs, tx = (WRAPPERS[name](lib) for lib in (optax, gradtx))
    given = as_ours(theirs.init(PARAMS))
    wanted, _ = run(tx, None, with_values(tx.init(PARAMS), given))
    reached, last = run(tx, None, given)
    assert_equal(reached, wanted)
    assert described(last) == described(given)


@pytest.mark.parametrize("rate", [0.1, falling])
def test_in_a_scan_and_outside_of_jit(rate):
    tx = gradtx.adamw(rate)
    given = as_ours(optax.adamw(rate).init(PARAMS))
    gradients = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), PARAMS)

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    results = []
    for state in (given, tx.init(PARAMS)):
        scanned, _ = jax.lax.scan(step, (PARAMS, state), gradients)
        stepped = PARAMS, state
        for number in range(3):
            stepped, _ = step(stepped, jax.tree.map(lambda x, n=number: x[n], gradients))
        for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(stepped), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        assert avals(scanned[1]) == avals(stepped[1]) == avals(state)
        results.append(scanned[0])
    assert_equal(*results)


# ---- States written by hand, and what is refused ----------------------------------------------


def test_states_written_by_hand():
    gradient = like(PARAMS, 5)
    adam = gradtx.ScaleByAdamState(jnp.int32(0), *(jax.tree.map(jnp.zeros_like, PARAMS),) * 2)
    wanted, _ = gradtx.adamw(0.1).update(gradient, gradtx.adamw(0.1).init(PARAMS), PARAMS)
    decay = gradtx.AddDecayedWeightsState()
    for last in (gradtx.EmptyState(), gradtx.ScaleByScheduleState(jnp.int32(0))):
        given = (adam, decay, last)
        updates, state = gradtx.adamw(0.1).update(gradient, given, PARAMS)
        assert_equal(updates, wanted)
        assert avals(state) == avals(given)
    rms = gradtx.ScaleByRmsState(nu=adam.nu)
    updates, state = gradtx.scale_by_rms().update(gradient, rms)
    assert avals(state) == avals(rms)
    assert_equal(
        updates, gradtx.scale_by_rms().update(gradient, gradtx.scale_by_rms().init(PARAMS))[0]
    )


def test_the_rate_of_the_call_counts_in_every_layout():
    tx = gradtx.sgd(0.1)
    for state in (tx.init(PARAMS), (gradtx.EmptyState(), gradtx.EmptyState())):
        updates, _ = tx.update(PARAMS, state, learning_rate=0.5)
        assert_equal(updates, jax.tree.map(lambda g: -0.5 * g, PARAMS))


class Other(NamedTuple):
    count: jax.Array
    x: jax.Array


@pytest.mark.parametrize(
    ("tx", "state", "message"),
    [
        (
            gradtx.sgd(falling),
            (gradtx.EmptyState(), gradtx.EmptyState()),
            r"^sgd \(scale_by_learning_rate\): needs the step count, which is not in the state",
        ),
        (
            gradtx.add_decayed_weights(falling),
            gradtx.AddDecayedWeightsState(),
            r"^add_decayed_weights: needs the step count, which is not in the state",
        ),
        (
            gradtx.scale_by_rms(bias_correction=True),
            gradtx.ScaleByRmsState(PARAMS),
            r"^scale_by_rms: needs the step count, which is not in the state",
        ),
        (
            gradtx.scale_by_learning_rate(0.1),
            Other(jnp.int32(0), jnp.ones(2)),
            r"^scale_by_learning_rate: the state .*Other",
        ),
        (gradtx.scale_by_learning_rate(0.1), jnp.ones(2), r"^scale_by_learning_rate: the state "),
        (gradtx.scale_by_rms(), gradtx.EmptyState(), r"^scale_by_rms: the state .*EmptyState"),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_what_cannot_be_gone_on_with(tx, state, message, compiled):
    update = jax.jit(tx.update) if compiled else tx.update
    with pytest.raises(TypeError, match=message):
        update(PARAMS, state, PARAMS)


@pytest.mark.parametrize("params", [None, {}, {"a": None}, 1.0, jnp.bfloat16(1.0)])
def test_parameters_of_any_kind(params):
    state = gradtx.optax_layout(gradtx.adam(falling)).init(params)
    assert described(state) == described(optax.adam(falling).init(params))


def test_the_slots_can_be_mapped():
    tx = gradtx.optax_layout(gradtx.adamw(0.1))
    state = tx.init(HALF)
    for library in (optax, gradtx):
        found = library.tree_utils.tree_map_params(tx, lambda x: x.ndim, state)
        assert (found[0].mu, found[0].count) == ({"w": 2, "b": 1}, 0)


def test_fields_that_optax_does_not_have_are_absent():
    state = gradtx.optax_layout(gradtx.contrib.prodigy()).init(PARAMS)
    assert isinstance(state, gradtx.contrib.ProdigyState) and state.count == 0
    with pytest.raises(AttributeError, match=r"ProdigyState has no other fields than \('exp_avg'"):
        _ = state.learning_rate
    assert not hasattr(state, "learning_rate")
    assert list(gradtx.hyperparams(state)) == ["estim_lr", "count"]


# ---- Checkpoints, and lookups -----------------------------------------------------------------


def trained(rate, library):
    tx = library.adamw(rate)
    return run(tx, None, tx.init(PARAMS))


@pytest.mark.parametrize("rate", [0.1, falling])
def test_checkpoints_of_flax(rate):
    params, old = trained(rate, optax)
    tx = gradtx.optax_layout(gradtx.adamw(rate))
    data = flax.serialization.to_bytes(old)
    state = flax.serialization.from_bytes(tx.init(PARAMS), data)
    assert described(state) == described(old)
    ours = gradtx.load_optax(gradtx.adamw(rate).init(PARAMS), old)
    after, _ = run(tx, None, jax.tree.map(jnp.asarray, state), params=params)
    wanted, _ = run(gradtx.adamw(rate), None, ours, params=params)
    assert_equal(after, wanted)
    assert flax.serialization.to_state_dict(state).keys() == {"0", "1", "2"}


@pytest.mark.parametrize("rate", [0.1, falling])
def test_checkpoints_of_orbax(rate, tmp_path):
    _, old = trained(rate, optax)
    tx = gradtx.optax_layout(gradtx.adamw(rate))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", old)
        checkpointer.wait_until_finished()
        state = checkpointer.restore(tmp_path / "state", tx.init(PARAMS))
    assert described(state) == described(old)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(old), strict=True):
        np.testing.assert_array_equal(a, b)


def test_lookups_of_both_libraries():
    state = gradtx.optax_layout(gradtx.adam(0.1)).init(PARAMS)
    injected = gradtx.optax_layout(gradtx.inject_hyperparams(gradtx.adam)(0.1)).init(PARAMS)
    for get in (optax.tree_utils.tree_get, gradtx.tree_utils.tree_get):
        assert get(state, "count") == 0
        assert get(injected, "learning_rate") == jnp.float32(0.1)
    usual = gradtx.inject_hyperparams(gradtx.adam)(0.1).init(PARAMS)
    assert gradtx.tree_utils.tree_get(usual, "learning_rate") == jnp.float32(0.1)
    assert gradtx.tree_utils.tree_get(gradtx.adam(0.1).init(PARAMS), "count") == 0


def test_other_leaves_are_int32_counts():
    """As code for optax assumes: leaves that are not like the parameters are step counts."""
    for rate in (0.1, falling):
        state = gradtx.optax_layout(gradtx.adamw(rate)).init(PARAMS)
        others = [x for x in jax.tree.leaves(state) if x.ndim == 0]
        assert others and all(x.dtype == jnp.int32 for x in others)
