"""`summary`: what acts on which parameters, and what it costs, before anything is allocated."""

import inspect
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec as P
from representatives import each_build
from trees import Layer

import gradtx
from gradtx import by_path, summary
from gradtx.engine.base import TransformationLike

PARAMS = {
    "embed": {"kernel": jnp.ones((4, 3))},
    "body": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3, jnp.bfloat16)},
    "head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "none": None},
}
NO_BIAS = by_path({"bias": False}, True)
HOLD = by_path({"embed": "hold"}, "tune")


def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def row(found, path):
    (it,) = [group for group in found.rows if path in group.paths]
    return it


@each_build
def test_every_optimizer_is_told_to_the_byte(entry):
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(4, jnp.bfloat16)}
    tx = entry.make()
    found = summary(tx, jax.eval_shape(lambda: params))
    state = tx.init(params)
    assert sum(found.total.state_bytes.values()) == size(state)
    by_dtype = {str(x.dtype) for x in jax.tree.leaves(state)}
    assert set(found.total.state_bytes) == by_dtype
    # those of matrices have another one for vectors
    of_matrices = {group.optimizer for group in found.rows if group.rule not in ("rest", "adam")}
    assert of_matrices == {entry.name}
    assert found.total.parameters == 16 and found.total.parameter_bytes == 56
    assert found.total.bytes == 56 + size(state)
    of_device = summary(tx, on_mesh(params, {"x": 1}, P())).total.device_bytes
    assert of_device == {"device": size(state)}
    for line in ("(total)", entry.name):
        assert line in str(found)


def test_the_optimizer_of_what_is_no_matrix():
    tx = gradtx.soap(0.1, of_rest=gradtx.chain(gradtx.lion(1e-3), gradtx.scale(0.5)))
    found = summary(tx, {"w": jnp.ones((3, 4)), "b": jnp.ones(4)})
    assert {group.rule: group.optimizer for group in found.rows} == {
        "matrices": "soap",
        "rest": "lion, scale",
    }


def test_groups_of_a_mask():
    found = summary(gradtx.adamw(0.1, weight_decay=0.01, mask=NO_BIAS), PARAMS)
    with_decay, without = row(found, "head/kernel"), row(found, "head/bias")
    assert len(found.rows) == 2
    assert with_decay.weight_decay == 0.01 and without.weight_decay is None
    assert (with_decay.rule, without.rule) == ("the others", "bias")
    assert without.paths == ("body/bias", "head/bias") and without.parameters == 5
    assert without.parameter_bytes == 3 * 2 + 2 * 4
    assert without.state_bytes == {"float32": 2 * 5 * 4}  # moments of bfloat16 are float32
    assert with_decay.state_bytes == {"float32": 2 * 27 * 4}
    assert found.shared == {"int32": 3 * 4, "float32": 4}


def test_frozen_parameters_show_as_such_and_cost_nothing():
    for tx in (
        gradtx.partition({"tune": gradtx.adamw(0.1), "hold": gradtx.set_to_zero()}, HOLD),
        gradtx.selective_transform(gradtx.adamw(0.1), freeze_mask=by_path({"embed": True}, False)),
    ):
        frozen = row(summary(tx, PARAMS), "embed/kernel")
        assert frozen.frozen and frozen.optimizer == "frozen" and frozen.weight_decay is None
        assert frozen.state_bytes == {} and frozen.bytes == frozen.parameter_bytes == 48
    behind = gradtx.chain(gradtx.adam(0.1), gradtx.freeze(by_path({"embed": True}, False)))
    frozen = row(summary(behind, PARAMS), "embed/kernel")
    assert frozen.frozen and frozen.optimizer == "adam, frozen" and frozen.rule == "embed"
    assert frozen.state_bytes == {"float32": 96}


def test_labels_decays_and_multipliers_through_wrappers():
    parts = {
        "tune": gradtx.adamw(0.1, weight_decay=lambda count: 0.1 / (count + 1), mask=NO_BIAS),
        "hold": gradtx.set_to_zero(),
    }
    chained = gradtx.chain(
        gradtx.counted(gradtx.clip_by_global_norm(1.0)),
        gradtx.partition(parts, HOLD),
        gradtx.multiply_by_path({re.compile("^head"): 10.0}),
    )
    for tx, form in (
        (chained, "{}"),
        (gradtx.watch(chained), "watch({})"),
        (gradtx.apply_if_finite(chained, 5), "apply_if_finite({})"),
        (gradtx.conditionally_mask(chained, lambda step: step < 3), "conditionally_mask({})"),
        (gradtx.named_chain(("it", gradtx.masked(chained, True))), "{}"),
    ):
        found = summary(tx, PARAMS)
        head = row(found, "head/kernel")
        pieces = "counted(clip_by_global_norm), adamw, multiply_by_path"
        assert head.optimizer == form.format(pieces)
        assert head.weight_decay == "schedule" and head.rate_multiplier == 10.0
        assert head.rule == "tune, ^head"
        bias = row(found, "body/bias")
        assert bias.weight_decay is None and bias.rate_multiplier == 1.0
        assert bias.rule == "tune, bias"
        held = row(found, "embed/kernel")
        assert held.frozen and held.rule == "hold" and held.rate_multiplier is None
        assert sum(found.total.state_bytes.values()) == size(tx.init(PARAMS))
    micro = summary(gradtx.MultiSteps(chained, 4), PARAMS)
    assert row(micro, "head/kernel").rule == "tune, ^head"
    assert row(micro, "embed/kernel").state_bytes == {"float32": 48}  # gathered gradients


def test_masks_inside_of_another_label_do_not_name_a_group():
    params = {"hidden": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "out": {"w": jnp.ones((2, 2))}}
    tune = gradtx.adamw(0.1, mask=by_path({"b": False}, True))
    parts = {"tune": tune, "hold": gradtx.set_to_zero()}
    found = summary(gradtx.partition(parts, by_path({"hidden": "hold"}, "tune")), params)
    assert [(group.rule, group.leaves) for group in found.rows] == [("hold", 2), ("tune", 1)]


def test_methods_that_couple_leaves_have_their_groups():
    parts = {"a": gradtx.prodigy(1.0), "b": gradtx.muon(0.1), "c": optax.adam(0.1)}
    tx = gradtx.partition(parts, by_path({"embed": "a", "body": "b"}, "c"))
    found = summary(tx, PARAMS)
    assert row(found, "embed/kernel").optimizer == "prodigy"
    assert row(found, "embed/kernel").state_bytes == {"float32": 4 * 48}
    assert row(found, "body/kernel").rule == "b/muon"
    assert row(found, "body/bias").rule == "b/adam"
    assert row(found, "head/bias").rule == "c"
    assert row(found, "head/bias").optimizer == "scale_by_adam"
    assert found.total.leaves == 5


def test_layers_have_their_multipliers():
    params = {f"block_{i}": jnp.ones(2) for i in range(3)} | {"head": jnp.ones(2)}
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.layerwise_decay(0.5, r"block_(\d+)"))
    found = summary(tx, params)
    assert [group.rate_multiplier for group in found.rows] == [0.25, 0.5, 1.0]
    assert found.rows[2].paths == ("block_2", "head")
    assert "block_2 and 1 more" in str(found)


def test_other_transformations_are_one_group():
    parts = {"tune": optax.adam(0.1), "hold": optax.set_to_zero()}
    for tx, told in (
        (optax.adamw(0.1), "scale_by_adam"),
        (optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)), "trace"),
        (optax.partition(parts, HOLD), "scale_by_adam"),
        (optax.clip(1.0), "other"),
        (gradtx.inject_hyperparams(gradtx.sgd)(0.1), "sgd"),
    ):
        found = summary(tx, PARAMS)
        (group,) = found.rows
        assert told in group.optimizer
        assert group.leaves == 5 and group.parameters == 32
        assert sum(found.total.state_bytes.values()) == size(tx.init(PARAMS))


def test_nothing_is_allocated():
    """2 TB of parameters."""
    params = {"w": jax.ShapeDtypeStruct((1_000_000, 500_000), jnp.float32)}
    found = summary(gradtx.watch(gradtx.adamw(0.1)), params)
    assert found.total.parameters == 5 * 10**11
    assert sum(found.rows[0].state_bytes.values()) == 4 * 10**12
    assert "6 TB" in str(found)


@pytest.mark.parametrize(
    "params",
    [jnp.ones(3), (), {}, [Layer(jnp.ones((2, 2)), None)], {"n": np.ones(2), "x": 1.0}],
    ids=str,
)
def test_trees_of_any_kind(params):
    found = summary(gradtx.adam(0.1), params)
    assert found.total.leaves == len(jax.tree.leaves(params))
    assert sum(found.total.state_bytes.values()) == size(gradtx.adam(0.1).init(params))
    assert str(found).splitlines()[-1].startswith("(total)")


def test_what_belongs_to_no_parameter_is_shared_whatever_the_parameters_are():
    found = summary(gradtx.adam(0.1), jnp.ones(3))
    assert found.shared == {"int32": 2 * 4, "float32": 4}
    assert found.rows[0].state_bytes == {"float32": 2 * 12}
    pair = gradtx.LookaheadParams(jnp.ones(3), jnp.ones(3))
    found = summary(gradtx.lookahead(gradtx.adam(0.1), 5, 0.5), pair)
    assert found.rows[0].state_bytes == {"float32": 2 * 12}
    injected = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.1)
    found = summary(injected, {"learning_rate": jnp.ones(3)})
    assert found.rows[0].state_bytes == {}


def test_the_table_reads_well():
    tx = gradtx.partition(
        {"tune": gradtx.adamw(0.1, weight_decay=0.01, mask=NO_BIAS), "hold": gradtx.set_to_zero()},
        HOLD,
    )
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct((100, *x.shape), x.dtype), PARAMS)
    assert (
        str(summary(tx, params))
        == """\
group       leaves  parameters  optimizer  decay  rate  state                       memory
----------  ------  ----------  ---------  -----  ----  -------------------------  -------
tune, bias       2         500  adamw                   float32 4 kB                5.4 kB
tune             2       1,500  adamw       0.01        float32 12 kB                18 kB
hold             1       1,200  frozen                                              4.8 kB
(shared)                                                float32 4 B, int32 12 B       16 B
(total)          5       3,200                          float32 16 kB, int32 12 B  28.2 kB"""
    )


def test_faults_of_masks_are_told():
    tx = gradtx.adamw(0.1, mask=by_path({"haed": False}, True))
    with pytest.raises(ValueError, match="by_path: 'haed' matches none of"):
        summary(tx, PARAMS)
    with pytest.raises(TypeError, match="int32"):
        summary(gradtx.adam(0.1), {"n": jnp.arange(3)})


MATRICES = {"a": jnp.zeros((16, 8)), "b": jnp.zeros((8, 32))}
FURTHER = {
    "MultiSteps": (2,),
    "apply_if_finite": (3,),
    "conditionally_mask": (lambda step: step < 3,),
    "conditionally_transform": (lambda step: step < 3,),
    "graft": (gradtx.sgd(0.1),),
    "lookahead": (5, 0.5),
    "sam": (gradtx.sgd(0.1),),
    "schedule_free": (0.1,),
    "store": ({"mu": "int8"},),
    "zero": ("x",),
}
"""The further arguments that wrappers need."""
OTHERS = {
    "crosscheck", "extra_args", "masked", "optax_layout", "selective_transform", "state_sharding",
    "store_as", "strict", "summary", "to_optax", "with_extra_args_support",
}  # fmt: skip
"""What takes a transformation and returns it, of fewer leaves or in another form, or a report."""


def wrappers():
    """The names of all public functions and classes that wrap a transformation."""
    for name, member in inspect.getmembers(gradtx):
        if callable(member) and member is not gradtx.Schedule and not name.startswith("_"):
            first = next(iter(inspect.signature(member).parameters.values()), None)
            if first is None or first.kind is first.VAR_POSITIONAL or name in OTHERS:
                continue
            if first.annotation in (TransformationLike, gradtx.GradientTransformation):
                yield name


@pytest.mark.parametrize("name", [*wrappers()])
def test_wrappers_are_named_with_what_is_in_them(name):
    params, further = on_mesh(MATRICES, {"x": 8}, P()), FURTHER.get(name, ())
    if name == "shard":
        mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
        params = jax.device_put(MATRICES, NamedSharding(mesh, P()))
        further = (params,)
    if name == "lookahead":
        params = gradtx.LookaheadParams(params, params)
    inner = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1))
    found = summary(getattr(gradtx, name)(inner, *further), params)
    others = ", sgd" if name in ("graft", "sam") else ""
    assert [group.optimizer for group in found.rows] == [f"{name}(clip, adam{others})"]


def test_wrappers_in_wrappers_are_named():
    inner = gradtx.chain(gradtx.spike_aware_clip(), gradtx.scale_by_adam())
    last = gradtx.scale_by_learning_rate(0.1)
    tx = gradtx.cautious(gradtx.chain(gradtx.momentum_reset(inner), last))
    (group,) = summary(tx, MATRICES).rows
    within = "momentum_reset(spike_aware_clip, scale_by_adam), scale_by_learning_rate"
    assert group.optimizer == f"cautious({within})"
    masked = summary(gradtx.kahan(gradtx.masked(inner, {"a": True, "b": False})), MATRICES)
    assert row(masked, "a").optimizer == "kahan(spike_aware_clip, scale_by_adam)"
    assert row(masked, "b").optimizer == "kahan"
    parts = {"tune": gradtx.adamw(0.1, weight_decay=0.01), "hold": gradtx.set_to_zero()}
    tx = gradtx.momentum_reset(gradtx.partition(parts, by_path({"a": "hold"}, "tune")))
    held, tuned = summary(tx, MATRICES).rows
    assert (held.optimizer, held.frozen) == ("momentum_reset(frozen)", True)
    assert (tuned.optimizer, tuned.weight_decay) == ("momentum_reset(adamw)", 0.01)


def on_mesh(tree, sizes, spec):
    """The shapes of a tree with shardings over a mesh whose devices need not be there."""
    kinds = (AxisType.Explicit,) * len(sizes)
    mesh = AbstractMesh((*sizes.values(),), (*sizes,), axis_types=kinds)
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


STATE, SCALARS = 2 * 4 * (16 * 8 + 8 * 32), 12  # of Adam: two moments; two counts and a rate


@pytest.mark.parametrize(
    ("wrap", "sizes", "spec", "part", "memory"),
    [
        (lambda tx: tx, {"x": 8}, P("x"), 8, "device"),
        (lambda tx: tx, {"x": 8}, P(), 1, "device"),
        (lambda tx: tx, {"data": 2, "x": 4}, P(None, "x"), 4, "device"),
        (lambda tx: gradtx.zero(tx, "data"), {"data": 2, "x": 4}, P(None, "x"), 8, "device"),
        (lambda tx: gradtx.zero(tx, "data"), {"data": 8}, P(), 8, "device"),
        (gradtx.offload, {"x": 8}, P("x"), 8, "pinned_host"),
        (lambda tx: gradtx.offload(gradtx.zero(tx, "x")), {"x": 8}, P(), 8, "pinned_host"),
    ],
)
def test_memory_of_one_device(wrap, sizes, spec, part, memory):
    tx = wrap(gradtx.adam(0.1))
    found = summary(tx, on_mesh(MATRICES, sizes, spec))
    assert found.total.state_bytes == summary(gradtx.adam(0.1), MATRICES).total.state_bytes
    assert found.rows[0].device_bytes == {memory: STATE // part}
    want = Counter({memory: STATE // part}) + Counter(device=SCALARS)
    assert found.total.device_bytes == want
    lines = str(found).splitlines()
    assert lines[0].endswith("  state per device") and lines[-2].endswith("  12 B")


def test_memory_of_one_device_by_group():
    params = on_mesh(MATRICES, {"x": 8}, P()) | on_mesh({"c": jnp.zeros((8, 2))}, {"x": 8}, P("x"))
    tx = gradtx.partition(
        {"adam": gradtx.adam(0.1), "hold": gradtx.set_to_zero(), "sgd": gradtx.sgd(0.1, 0.9)},
        by_path({"a": "hold", "b": "adam", "c": "sgd"}),
    )
    found = summary(tx, params)
    assert row(found, "a").device_bytes == {}
    assert row(found, "b").device_bytes == {"device": 2 * 4 * 8 * 32}
    assert row(found, "c").device_bytes == {"device": 4 * 2}


def test_memory_of_one_device_over_automatic_axes():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    params = jax.device_put(MATRICES, NamedSharding(mesh, P()))
    for tx in (
        gradtx.muon(0.1),
        gradtx.shard(gradtx.muon(0.1), params),
        gradtx.zero(gradtx.adam(0.1), "data", params),
        gradtx.offload(gradtx.shard(gradtx.adam(0.1), params)),
    ):
        found = summary(tx, params)
        state, sharding = tx.init(params), gradtx.state_sharding(tx, params)
        assert sum(found.total.device_bytes.values()) == size(state)
        on_host = [x for x in jax.tree.leaves(state) if x.sharding.memory_kind == "pinned_host"]
        assert found.total.device_bytes.get("pinned_host", 0) == size(on_host)
        kinds = jax.tree.map(lambda x: x.sharding.memory_kind, state)
        assert jax.tree.map(lambda x: x.memory_kind, sharding) == kinds
        again = jax.jit(tx.init, out_shardings=sharding)(params)
        assert jax.tree.map(lambda x: x.sharding.memory_kind, again) == kinds
    with pytest.raises(ValueError, match="zero: no parameter is on a mesh with explicit axes"):
        summary(gradtx.zero(gradtx.adam(0.1), "data"), params)


def test_one_mesh_for_all_parameters():
    params = on_mesh(MATRICES, {"x": 8}, P()) | on_mesh({"c": jnp.zeros((8, 2))}, {"y": 8}, P())
    with pytest.raises(ValueError, match="summary: the parameters are on 2 different meshes"):
        summary(gradtx.adam(0.1), params)


def test_without_a_mesh_no_memory_of_one_device():
    found = summary(gradtx.adam(0.1), MATRICES)
    assert found.total.device_bytes == {} and "per device" not in str(found)
