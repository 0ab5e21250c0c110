"""States as flat mappings: nothing lost, every bit back, moments kept when a chain changes."""

import os
import subprocess
import sys
from pathlib import Path

import flax.serialization
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from test_conformance import counted_traces
from trees import assert_equal, avals, like, loss_around, numbers

import gradtx
from gradtx.state.counts import check_counts

ROOT = Path(__file__).parents[2]
PARAMS = {"layer": {"w": numbers((2, 3), 1)}, "h": numbers((3,), 2, jnp.bfloat16)}
MASK = {"layer": {"w": True}, "h": False}
LABELS = {"layer": {"w": "one"}, "h": "other"}
GRADS = like(PARAMS, 10)
COUNTS = ("scale_by_learning_rate/count", "scale_by_learning_rate/learning_rate")


def halving(count):
    return 0.5**count / 4


def step(tx, state, params=PARAMS, grads=GRADS):
    loss = loss_around(params, grads)
    extra = {"value": loss(params), "grad": grads, "value_fn": loss, "obj_fn": loss}
    updates, state = tx.update(grads, state, params, **extra)
    return gradtx.apply_updates(params, updates), state


def after(tx, steps=2, params=PARAMS):
    state = tx.init(params)
    for i in range(steps):
        params, state = step(tx, state, params, like(PARAMS, 20 + i))
    return state


def through_npz(flat, folder):
    np.savez(folder / "state.npz", **flat)
    with np.load(folder / "state.npz") as file:
        return dict(file)


# ---- Whole --------------------------------------------------------------------------------------

OPTIMIZERS = st.sampled_from(gradtx.catalog.entries()).map(lambda entry: entry.make())
INJECTED = st.sampled_from(["adam", "sgd", "rmsprop", "lion"]).map(
    lambda name: gradtx.inject_hyperparams(getattr(gradtx, name))(learning_rate=halving)
)
PIECES = st.sampled_from(
    [
        gradtx.clip(0.5),
        gradtx.clip_by_global_norm(1.0),
        gradtx.zero_nans(),
        gradtx.trace(0.9),
        gradtx.ema(0.9),
        gradtx.apply_every(2),
        gradtx.add_noise(0.1, 0.5, jax.random.key(3)),
        gradtx.scale_by_schedule(halving),
        gradtx.contrib.reduce_on_plateau(),
    ]
)
CHAINS = st.recursive(
    OPTIMIZERS | INJECTED | PIECES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: gradtx.chain(*parts))
        | inner.map(lambda tx: gradtx.masked(tx, MASK))
        | inner.map(lambda tx: gradtx.named_chain(("only", tx)))
        | inner.map(lambda tx: gradtx.MultiSteps(tx, 2).gradient_transformation())
        | inner.map(lambda tx: gradtx.apply_if_finite(tx, 3))
        | inner.map(lambda tx: gradtx.conditionally_transform(tx, lambda n, **_: n != 1))
        | st.tuples(inner, inner).map(
            lambda two: gradtx.partition(dict(zip(("one", "other"), two, strict=True)), LABELS)
        )
    ),
    max_leaves=4,
)
few = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.thorough
@given(CHAINS)
@settings(few, max_examples=200)
def test_nothing_is_lost_of_any_chain(tmp_path, tx):
    """Each leaf gets other bits than the template has, and all come back through a file."""
    state = jax.tree.map(_other_bits, tx.init(PARAMS))
    flat = gradtx.state_dict(state)
    assert len(flat) == 1 + len(jax.tree.leaves(state))
    template = jax.eval_shape(tx.init, PARAMS)
    restored = gradtx.load_state_dict(template, through_npz(flat, tmp_path))
    assert_equal(restored, state)
    assert avals(restored) == avals(state)


def _other_bits(x, counter=iter(range(10**9))):  # noqa: B008
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.fold_in(x, next(counter))
    random = np.random.default_rng(next(counter))
    if x.dtype == bool:
        return jnp.asarray(random.integers(0, 2, x.shape), bool)
    return jnp.asarray(random.integers(0, 99, x.shape), x.dtype)


@given(CHAINS)
@settings(few, max_examples=12)
def test_any_chain_goes_on_bit_for_bit(tmp_path, tx):
    state = after(tx)
    restored = gradtx.load_state_dict(
        tx.init(PARAMS), through_npz(gradtx.state_dict(state), tmp_path)
    )
    assert_equal(restored, state)
    assert_equal(step(tx, restored), step(tx, state))


def test_bfloat16_and_random_keys_go_through_a_file(tmp_path):
    state = {
        "bf16": numbers((3,), 1, jnp.bfloat16),
        "f16": numbers((3,), 2, jnp.float16),
        "f8": numbers((3,), 3, jnp.float8_e4m3fn),
        "complex": numbers((3,), 4, jnp.complex64),
        "nan": jnp.array([jnp.nan, jnp.inf, -0.0, 1e-45]),
        "empty": jnp.zeros((0, 2)),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 2),
        "old key": jax.random.PRNGKey(3),
        "flag": jnp.array(True),
        "weak": jnp.asarray(2.5),
        "numpy": np.array([1.5, 1e-300]),
        "number": 7,
    }
    file = through_npz(gradtx.state_dict(state), tmp_path)
    assert file["key"].dtype == np.uint32
    restored = gradtx.load_state_dict(state, file)
    assert_equal(restored, state)
    assert type(restored["number"]) is int and type(restored["numpy"]) is np.ndarray
    assert restored["numpy"].dtype == np.float64
    assert restored["weak"].weak_type
    assert_equal(jax.random.normal(restored["keys"][1]), jax.random.normal(state["keys"][1]))
    shapes = jax.eval_shape(lambda: {k: v for k, v in state.items() if k != "numpy"})
    restored = gradtx.load_state_dict(shapes, {k: v for k, v in file.items() if k != "numpy"})
    assert avals(restored)[1][:3] == avals({**state, "number": jnp.asarray(7)})[1][:3]


def test_float64(x64, tmp_path):
    params = {"w": jnp.array([1.0, 2.0])}
    tx = gradtx.adam(0.1)
    _, state = step(tx, tx.init(params), params, {"w": jnp.array([0.1, 0.3])})
    file = through_npz(gradtx.state_dict(state), tmp_path)
    assert file["scale_by_adam/mu/w"].dtype == np.float64
    assert_equal(gradtx.load_state_dict(jax.eval_shape(tx.init, params), file), state)


@pytest.mark.parametrize("shapes_only", [False, True])
def test_orbax(tmp_path, shapes_only):
    tx = gradtx.chain(gradtx.add_noise(0.1, 0.5, jax.random.key(3)), gradtx.adam(halving))
    state = after(tx)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", gradtx.state_dict(state))
    template = jax.eval_shape(tx.init, PARAMS) if shapes_only else tx.init(PARAMS)
    with ocp.StandardCheckpointer() as checkpointer:
        flat = checkpointer.restore(tmp_path / "state", gradtx.state_dict(tx.init(PARAMS)))
    restored = gradtx.load_state_dict(template, flat)
    assert_equal(restored, state)
    assert_equal(step(tx, restored), step(tx, state))


def test_shapes_are_saved_under_the_same_names():
    tx = gradtx.chain(gradtx.add_noise(0.1, 0.5, jax.random.key(3)), gradtx.adam(halving))
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
        jax.eval_shape(tx.init, PARAMS),
    )
    flat, real = gradtx.state_dict(shapes), gradtx.state_dict(tx.init(PARAMS))
    assert flat.pop("version") == real.pop("version")
    assert [*flat] == [*real] and any(name.endswith("rng_key") for name in flat)
    for name, x in flat.items():
        assert (x.shape, x.dtype, x.sharding) == (real[name].shape, real[name].dtype, whole)


def test_random_keys_in_files_of_flax():
    """flax writes no keys, as JAX's error says; `state_dict` has their data instead."""
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.add_noise(0.1, 0.5, 0))
    state = after(tx)
    with pytest.raises(TypeError, match=r"PRNGKey dtype cannot .* Use jax.random.key_data"):
        flax.serialization.to_bytes(state)
    data = flax.serialization.to_bytes(gradtx.state_dict(state))
    saved = flax.serialization.msgpack_restore(data)
    assert_equal(gradtx.load_state_dict(tx.init(PARAMS), saved), state)


def test_the_train_state_of_flax(tmp_path):
    tx = gradtx.adam(0.1)

    def create():
        return flax.training.train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=tx)

    for state in (create(), create().apply_gradients(grads=GRADS)):
        file = through_npz(gradtx.state_dict(state), tmp_path)
        assert {"train/step", "train/params/layer/w", "scale_by_adam/mu/h"} <= file.keys()
        restored = gradtx.load_state_dict(create(), file)
        assert int(restored.step) == int(state.step)
        assert_equal(restored.params, state.params)
        assert_equal(restored.opt_state, state.opt_state)


def test_a_jitted_step_is_not_traced_again_and_copies_survive_donation(tmp_path):
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(halving))

    @jax.jit
    def jitted(state):
        return tx.update(GRADS, state, PARAMS)[1]

    state = jitted(jitted(tx.init(PARAMS)))
    flat = gradtx.state_dict(state)
    placed = {name: jax.device_put(x, jax.devices()[0]) for name, x in flat.items()}
    compilations = []

    def listen(event, seconds, **kwargs):
        if "compile" in event:
            compilations.append(event)

    for template in (tx.init(PARAMS), jax.eval_shape(tx.init, PARAMS)):
        for source in (flat, through_npz(flat, tmp_path), placed):
            restored = gradtx.load_state_dict(template, source)
            jax.monitoring.register_event_duration_secs_listener(listen)
            try:
                with counted_traces() as traced:
                    jitted(restored)
            finally:
                jax.monitoring.unregister_event_duration_listener(listen)
            assert traced == compilations == []
            # A step that donates what was restored leaves what was saved as it is.
            jax.jit(lambda state: state, donate_argnums=0)(restored)
            assert_equal(gradtx.load_state_dict(template, source), state)
    there = jax.device_put(state, jax.devices()[0])
    restored = gradtx.load_state_dict(there, gradtx.state_dict(there))
    jax.jit(lambda state: state, donate_argnums=0)(restored)
    assert_equal(there, state)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import gradtx

mesh = Mesh(np.array(jax.devices()), "x")
rows, everywhere = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
params = {"w": jax.device_put(jnp.arange(8.0).reshape(4, 2), rows)}
tx = gradtx.adam(0.1)
_, state = jax.jit(tx.update)(params, tx.init(params))
assert state[0].mu["w"].sharding.is_equivalent_to(rows, 2)
flat = gradtx.state_dict(state)
assert flat["scale_by_adam/mu/w"] is state[0].mu["w"]
on_host = {name: np.asarray(x) for name, x in flat.items()}
shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
elsewhere = {name: jax.device_put(x, jax.devices()[1]) for name, x in on_host.items()}
for template in (state, shapes):
    for source in (flat, on_host, elsewhere):
        back = gradtx.load_state_dict(template, source)
        for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(back), strict=True):
            assert new.sharding.is_equivalent_to(old.sharding, new.ndim), (old.sharding, new)
            np.testing.assert_array_equal(old, new)
        assert {s.data.shape for s in back[0].mu["w"].addressable_shards} == {(1, 2)}

# What was saved on four devices goes on on one.
alone = jax.device_put(params, jax.devices()[0])
back = gradtx.load_state_dict(tx.init(alone), flat)
assert back[0].mu["w"].devices() == {jax.devices()[0]}
print("kept")
"""


def test_arrays_keep_their_sharding():
    result = subprocess.run(
        [sys.executable, "-c", SHARDED],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
        },
    )
    assert result.stdout == "kept\n", result.stderr


# ---- A part -------------------------------------------------------------------------------------

MU = ("scale_by_adam/mu/h", "scale_by_adam/mu/layer/w")
NU = ("scale_by_adam/nu/h", "scale_by_adam/nu/layer/w")
ADAM = ("scale_by_adam/count", *MU, *NU)
GUARD = tuple(
    f"apply_if_finite/{name}" for name in ("notfinite_count", "last_finite", "total_notfinite")
)


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        (gradtx.adam(halving), ()),
        (gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)), ()),
        (gradtx.chain(gradtx.clip(1.0), gradtx.scale_by_adam(), gradtx.scale(-1)), None),
        (gradtx.apply_if_finite(gradtx.adam(0.1), 3), GUARD),
        (gradtx.adamw(0.1), ("add_decayed_weights/count",)),
        (
            gradtx.chain(gradtx.adam(0.1), gradtx.scale_by_schedule(halving)),
            ("scale_by_schedule/count",),
        ),
        (
            gradtx.MultiSteps(gradtx.adam(0.1), 2),
            (
                *("multi_steps/mini_step", "multi_steps/gradient_step"),
                *("multi_steps/acc_grads/h", "multi_steps/acc_grads/layer/w"),
                "multi_steps/excess_weight",
            ),
        ),
        (gradtx.masked(gradtx.adam(0.1), lambda tree: jax.tree.map(lambda x: True, tree)), ()),
    ],
)
def test_adding_or_removing_a_piece_orphans_no_moment(changed, missing):
    """From plain Adam to an Adam with something around it, and back."""
    plain = gradtx.adam(0.1)
    state, other = after(plain), after(changed)
    moments = {name: x for name, x in gradtx.state_dict(state).items() if name in ADAM}
    assert len(moments) == 5

    forth, report = gradtx.load_matching(changed.init(PARAMS), gradtx.state_dict(state))
    assert not report.reshaped and not report.recast
    assert report.missing == (missing or ())
    assert report.unexpected == (COUNTS if missing is None else ())
    assert_equal({n: gradtx.state_dict(forth)[n] for n in moments}, moments)
    new = gradtx.state_dict(changed.init(PARAMS))
    for name in report.missing:  # what is new begins as init makes it
        assert_equal(gradtx.state_dict(forth)[name], new[name])

    back, report = gradtx.load_matching(plain.init(PARAMS), gradtx.state_dict(other))
    assert report.unexpected == (missing or ())
    assert report.missing == (COUNTS if missing is None else ())
    theirs = gradtx.state_dict(other)
    assert_equal({n: gradtx.state_dict(back)[n] for n in moments}, {n: theirs[n] for n in moments})


def test_a_mask_added_and_taken_away():
    plain, masked = gradtx.adam(0.1), gradtx.masked(gradtx.adam(0.1), MASK)
    state = after(plain)
    fewer, report = gradtx.load_matching(masked.init(PARAMS), gradtx.state_dict(state))
    assert report.unexpected == ("scale_by_adam/mu/h", "scale_by_adam/nu/h")
    assert not report.missing and not report.complete
    assert_equal(fewer.inner_state[0].mu["layer"], state[0].mu["layer"])
    more, report = gradtx.load_matching(plain.init(PARAMS), gradtx.state_dict(fewer))
    assert report.missing == ("scale_by_adam/mu/h", "scale_by_adam/nu/h")
    assert_equal(more[0].nu["layer"], state[0].nu["layer"])
    assert not more[0].mu["h"].any()


def test_the_report_tells_everything():
    tx = gradtx.sgd(0.1, momentum=0.9, accumulator_dtype=jnp.bfloat16)
    saved = gradtx.state_dict(gradtx.sgd(0.1, momentum=0.9).init({"a": jnp.ones(3), "b": 1.0}))
    template = tx.init({"a": jnp.ones(2), "b": jnp.ones(()), "c": jnp.ones(1)})
    saved["other"] = np.ones(1)
    state, report = gradtx.load_matching(template, saved)
    assert (state[0].trace["a"].shape, state[0].trace["b"].dtype) == ((2,), jnp.bfloat16)
    assert str(report).splitlines() == [
        "3 read",
        "missing: trace/trace/c",
        "unexpected: other",
        "reshaped: trace/trace/a: saved float32[3], needs bfloat16[2]",
        "recast: trace/trace/b: saved float32, needs bfloat16",
    ]
    with pytest.raises(gradtx.StateMismatch) as error:
        gradtx.load_state_dict(template, saved)
    assert error.value.report == report
    assert str(report) in str(error.value) and "load_matching loads those" in str(error.value)


@pytest.mark.parametrize(
    ("template", "saved", "told"),
    [
        (jnp.zeros(2, jnp.float16), jnp.ones(2, jnp.bfloat16), "|V2[2], needs float16[2]"),
        (jnp.zeros(2), jnp.ones(2, jnp.complex64), "complex64[2], needs float32[2]"),
        (jax.random.key(0), jax.random.key(0, impl="rbg"), "uint32[4], needs uint32[2]"),
    ],
)
def test_bits_are_never_taken_for_something_else(tmp_path, template, saved, told):
    file = through_npz(gradtx.state_dict([saved]), tmp_path)
    with pytest.raises(gradtx.StateMismatch) as error:
        gradtx.load_state_dict([template], file)
    assert str(error.value).endswith(f"reshaped: 0: saved {told}")
    assert_equal(gradtx.load_matching([template], file)[0], [template])


def test_a_template_of_shapes_cannot_fill_gaps():
    saved = gradtx.state_dict(gradtx.adam(0.1).init(PARAMS))
    template = jax.eval_shape(gradtx.adamw(0.1).init, PARAMS)
    with pytest.raises(ValueError, match=r"add_decayed_weights/count needs a value .* tx.init"):
        gradtx.load_matching(template, saved)


def test_what_is_no_array_cannot_be_saved():
    with pytest.raises(TypeError, match="state_dict: name must be an array, got str"):
        gradtx.state_dict({"name": "adam"})


# ---- Versions -----------------------------------------------------------------------------------


def test_migrations_go_step_by_step(tmp_path):
    """Version 0 called the layer `dense`; version 1 stored it transposed."""
    tx, params = gradtx.trace(0.9), {"layer": jnp.zeros((2, 3))}
    old = {"trace/trace/dense": np.arange(6.0, dtype=np.float32).reshape(3, 2)}
    migrate = {
        0: lambda flat: {n.replace("dense", "layer"): x for n, x in flat.items()},
        1: lambda flat: {n: x.T for n, x in flat.items()},
    }
    for number, saved in ((0, old), (1, migrate[0](old)), (2, migrate[1](migrate[0](old)))):
        file = through_npz({"version": number, **saved}, tmp_path)
        state = gradtx.load_state_dict(tx.init(params), file, version=2, migrate=migrate)
        np.testing.assert_array_equal(state.trace["layer"], old["trace/trace/dense"].T)
    flat = gradtx.state_dict(state, version=2)
    assert int(flat["version"]) == 2
    with pytest.raises(ValueError, match="saved version must be at most the program's, 1, got 2"):
        gradtx.load_state_dict(tx.init(params), flat, version=1, migrate=migrate)
    with pytest.raises(ValueError, match=r"version is 0, the program's is 3; .* for version 2"):
        gradtx.load_matching(tx.init(params), old, version=3, migrate=migrate)


# ---- What no state can have -------------------------------------------------------------------

NAME = "scale_by_adam/count"


def adam_state():
    return gradtx.adam(0.1).init({"w": jnp.ones(2)})


@pytest.mark.parametrize(
    "value",
    ["x", b"x", None, {}, np.datetime64("2020"), np.array(None), np.array("x"),
     np.float32(5.5), np.float32(np.nan), np.int64(2**40), np.complex64(1)],
)  # fmt: skip
def test_counts_that_are_no_whole_numbers_are_not_cast(value):
    flat = {**gradtx.state_dict(adam_state()), NAME: value}
    with pytest.raises(gradtx.state.StateMismatch, match=f"reshaped: {NAME}: saved "):
        gradtx.load_state_dict(adam_state(), flat)
    loaded, report = gradtx.load_matching(adam_state(), flat)
    assert [name for name, _, _ in report.reshaped] == [NAME] and loaded[0].count == 0


def test_whole_numbers_of_other_dtypes_are_cast():
    for value in (np.float32(5), np.int64(5), jnp.float32(5), 5):
        flat = {**gradtx.state_dict(adam_state()), NAME: value}
        loaded, report = gradtx.load_matching(adam_state(), flat)
        assert loaded[0].count == 5 and not report.reshaped


@pytest.mark.parametrize("load", [gradtx.load_state_dict, gradtx.load_matching])
def test_negative_counts_are_refused(load):
    flat = {**gradtx.state_dict(adam_state()), NAME: np.int32(-5)}
    with pytest.raises(ValueError, match=f"{load.__name__}: {NAME} must be at least 0, got -5"):
        load(adam_state(), flat)


@pytest.mark.parametrize("version", ["x", -1, 1.5, np.ones(2), None])
def test_versions_are_whole_numbers(version):
    flat = {**gradtx.state_dict(adam_state()), "version": version}
    with pytest.raises(ValueError, match="the saved version must be an integer of at least 0, got"):
        gradtx.load_state_dict(adam_state(), flat)


@pytest.mark.parametrize("flat", ["state.npz", None, [1], 3])
def test_what_is_loaded_is_a_mapping(flat):
    with pytest.raises(
        TypeError, match="load_state_dict: flat must be a mapping from names to arr"
    ):
        gradtx.load_state_dict(adam_state(), flat)


def test_a_template_of_shapes_has_no_counts_to_be_checked():
    shapes = jax.eval_shape(adam_state)
    check_counts(shapes)
    loaded = gradtx.load_state_dict(shapes, gradtx.state_dict(adam_state()))
    assert loaded[0].count == 0
