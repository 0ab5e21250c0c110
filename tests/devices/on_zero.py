"""`gradtx.zero`, `gradtx.offload`, `gradtx.shard`: what they do, and what they refuse."""

import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from meshes import (
    in_context,
    largest_difference,
    moved,
    numbers,
    on_many,
    on_one,
    placed,
    share,
)

import gradtx

# A leaf that does not divide, one that divides along its second axis only, a scalar, a small one.
SHAPES = {"w": (16, 8), "odd": (5, 3), "v": (5, 24), "s": (), "b": (8,), "t": (2, 16, 3)}
WHOLE = dict.fromkeys(SHAPES, P())
MESHES = {
    "8": ({"data": 8}, WHOLE),
    "2x4": (
        {"model": 2, "data": 4},
        {**WHOLE, "w": P("model"), "v": P(None, "model"), "b": P("data")},
    ),
}


INNER = {
    "adamw": lambda: gradtx.adamw(0.1),
    "clipped": lambda: gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adamw(0.1)),
    "muon": lambda: gradtx.muon(0.1),
    "lamb": lambda: gradtx.lamb(0.1),
    "prodigy": lambda: gradtx.prodigy(1.0),
    "lbfgs": lambda: gradtx.chain(gradtx.scale_by_lbfgs(3), gradtx.scale(-0.1)),
    "adafactor": lambda: gradtx.adafactor(0.1, min_dim_size_to_factor=4),
    "galore": lambda: gradtx.galore(0.1, rank=2, update_proj_gap=2),
    "inject": lambda: gradtx.inject_hyperparams(gradtx.muon)(learning_rate=0.1),
    "MultiSteps": lambda: gradtx.MultiSteps(gradtx.adam(0.1), 2),
    "masked": lambda: gradtx.masked(gradtx.adam(0.1), {**dict.fromkeys(SHAPES, True), "v": False}),
    "partition": lambda: gradtx.partition(
        {1: gradtx.adam(0.1), 2: gradtx.set_to_zero()}, {**dict.fromkeys(SHAPES, 1), "v": 2}
    ),
    "schedule_free": lambda: gradtx.contrib.schedule_free(gradtx.sgd(0.1), 0.1, b1=0.9),
    "watch": lambda: gradtx.watch(gradtx.adam(0.1)),
}


def mesh_of(axes, kind):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(kind,) * len(axes))


@functools.cache
def reference(inner):
    return on_one(INNER[inner](), SHAPES, number=4)


@pytest.mark.parametrize(
    ("way", "setting", "jitted"),
    [
        ("explicit", "8", True),
        ("explicit", "2x4", False),
        ("automatic", "8", False),
        ("automatic", "2x4", True),
        ("offloaded", "8", True),
        ("offloaded", "8", False),
    ],
)
@pytest.mark.parametrize("inner", INNER)
def test_zero(inner, setting, jitted, way):
    axes, specs = MESHES[setting]
    mesh = mesh_of(axes, AxisType.Auto if way == "automatic" else AxisType.Explicit)
    tx = INNER[inner]()
    if way == "explicit":
        tx = gradtx.zero(tx, "data")
    elif way == "automatic":
        tx = functools.partial(gradtx.zero, tx, "data")
    else:
        tx = gradtx.offload(gradtx.zero(tx, "data"))
    found = on_many(tx, mesh, specs, SHAPES, jitted=jitted, number=4)
    assert largest_difference(found.updates, reference(inner).updates) <= 1e-12
    params = placed(numbers(SHAPES), mesh, specs)
    for updates in found.updates:
        assert moved(params, updates) == []
    for state in found.states[1:]:
        assert moved(found.states[0], state) == []
    assert found.compiled[1:] == [0] * 3
    # Of GaLore's projections of (5, 24), one axis of length 2 cannot be divided.
    least = (0.25 if inner == "galore" else 0.13) * (1 if setting == "8" else 2)
    assert share(found.states[0], 48) <= least
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(found.states[-1]) if x.ndim}
    assert kinds == {"pinned_host" if way == "offloaded" else "device"}


# ---- Gradients that are not yet summed over the devices -----------------------------------------


@pytest.mark.parametrize("inner", ["adamw", "clipped", "muon"])
def test_unreduced_gradients(inner):
    shapes = {"w": (16, 8), "v": (8, 24)}
    host, x = numbers(shapes), np.random.default_rng(0).normal(size=(32, 16))
    mesh = mesh_of({"data": 8}, AxisType.Explicit)
    params = placed(host, mesh, dict.fromkeys(shapes, P()))
    data = jax.device_put(x, NamedSharding(mesh, P("data")))

    def on_batch(params, x):
        return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"]) ** 2)

    def step(tx, params, state, x, reduced):
        at = jax.reshard(params, P(reduced={"data"})) if reduced else params
        return tx.update(jax.grad(on_batch)(at, x), state, params)

    tx = INNER[inner]()
    wanted, _ = step(tx, host, tx.init(host), x, False)
    tx = gradtx.zero(tx, "data")
    with jax.set_mesh(mesh):
        state = tx.init(params)
        run = jax.jit(functools.partial(step, tx, reduced=True))
        found, after = run(params, state, data)
        text = run.lower(params, state, data).compile().as_text()
    assert largest_difference([found], [wanted]) <= 1e-12
    assert moved(params, found) == [] and moved(state, after) == []
    made = Counter(re.findall(r" (all-gather|reduce-scatter)\(", text))
    assert made["reduce-scatter"] >= 1 and made["all-gather"] >= 1


# ---- What is refused, and how it is said --------------------------------------------------------


def told(call, error=ValueError):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def on(mesh, *spec, shape=(16, 8)):
    return jax.device_put(np.ones(shape), NamedSharding(mesh, P(*spec)))


def test_errors_of_zero():
    explicit, automatic = (mesh_of({"x": 8}, k) for k in (AxisType.Explicit, AxisType.Auto))
    tx = gradtx.zero(gradtx.adam(0.1), "x")
    assert "for automatic axes give params=" in told(lambda: tx.init(on(automatic)))
    small = {"a": on(explicit, shape=(3,)), "b": on(explicit, shape=(5, 7))}
    wanted = (
        "zero: no parameter can be divided over the mesh axis 'x', of length 8; the shapes are "
        "(3,), (5, 7)"
    )
    assert told(lambda: tx.init(small)) == wanted
    other = gradtx.zero(gradtx.adam(0.1), "y")
    wanted = "zero: axis must be an axis of the mesh, 'x', got 'y'"
    assert told(lambda: other.init(on(explicit))) == wanted
    params = on(automatic)
    assert told(lambda: gradtx.zero(gradtx.adam(0.1), "y", params).init(params)) == wanted


def test_errors_of_shard():
    one, two = (mesh_of(axes, AxisType.Auto) for axes in ({"x": 8}, {"d": 2, "t": 4}))
    tx = gradtx.adam(0.1)
    for make in (gradtx.shard, gradtx.state_sharding):
        assert "no parameter has a NamedSharding; place" in told(lambda m=make: m(tx, np.ones(3)))
        both = {"a": on(one), "b": on(two)}
        assert "are on 2 different meshes" in told(lambda m=make, b=both: m(tx, b))
    params = {"a": on(one, "x")}
    sharded = gradtx.shard(tx, params)
    state = sharded.init(params)
    assert "['b']" in told(lambda: sharded.init({"b": params["a"]}))
    assert "['b']" in told(lambda: sharded.update({"b": params["a"]}, state, {"b": params["a"]}))
    other = gradtx.sgd(0.1, momentum=0.9).init(params)
    wrong = told(lambda: sharded.update(params, other, params))
    assert "only init(params) has init(params)[0].count" in wrong and "state[0].trace" in wrong


def test_offloaded_states_are_known_before():
    for kind in (AxisType.Explicit, AxisType.Auto):
        mesh = mesh_of({"x": 8}, kind)
        params = on(mesh, "x")
        for tx in (gradtx.offload(gradtx.adam(0.1)), gradtx.offload(gradtx.muon(0.1))):
            known = gradtx.state_sharding(tx, params)
            with in_context(mesh):
                state = jax.jit(tx.init, out_shardings=known)(params)
                _, state = jax.jit(tx.update)(params, state, params)
            for s, x in zip(jax.tree.leaves(known), jax.tree.leaves(state), strict=True):
                assert s.memory_kind == x.sharding.memory_kind
                assert s.memory_kind == ("pinned_host" if x.ndim else "device")


def test_readings():
    mesh = mesh_of({"x": 8}, AxisType.Explicit)
    params = on(mesh)
    tx = gradtx.offload(gradtx.zero(gradtx.adam(0.1), "x"))
    with jax.set_mesh(mesh):
        state = tx.init(params)
        updates, state = tx.update(params, state, params, learning_rate=0.5)
        saved = gradtx.state_dict(state)
        loaded = gradtx.load_state_dict(tx.init(params), saved)
    assert float(gradtx.hyperparams(state)["learning_rate"]) == 0.5
    assert int(gradtx.hyperparams(state)["count"]) == 1
    np.testing.assert_allclose(updates, -0.5, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(loaded), strict=True):
        assert a.sharding == b.sharding
        np.testing.assert_array_equal(a, b)
