"""Every optimizer over every kind of mesh: where updates and states lie, and their numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from meshes import (
    SETTINGS,
    check_on,
    collectives_of,
    gradients_of,
    in_context,
    largest_difference,
    loss_in_another_order,
    moved,
    numbers,
    on_many,
    on_one,
    placed,
    same_sharding,
    share,
    walk,
)

import gradtx
from gradtx import catalog
from gradtx.engine.pipeline import pipeline_of
from gradtx.matrices.matrixwise import Stacked
from gradtx.tree.walking import parts

ENTRIES = catalog.entries()
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def roles_of(entry):
    """The kinds of the fields of a state."""
    return frozenset(part.kind for part in parts(entry.make().init({"w": jnp.ones((2, 3))})))


def uses_matrices(entry):
    return any(isinstance(link, Stacked) for link in pipeline_of(entry.make()).links)


# Methods on matrices with the same kinds of fields are the same to the engine. Outside of `jit`,
# where each operation is compiled alone, one of them is tried.
FIRST = {roles_of(x): x for x in ENTRIES[::-1] if uses_matrices(x)}.values()
each_outside_jit = pytest.mark.parametrize(
    "entry", [x for x in ENTRIES if x in FIRST or not uses_matrices(x)], ids=lambda x: x.name
)
# Leaves that a mesh cannot divide, such as (2, 8, 16) by columns, have some more.
LARGEST_SHARE = {"8": 0.13, "2x4": 0.18, "replicated": 1.0}


@functools.cache
def reference(name):
    entry = catalog.get(name)
    return on_one(entry.make(), entry=entry)


@functools.cache
def tolerance(name):
    """1e-12, or what a sum in another order does to a method on one device.

    That is more only for line searches, which interpolate between losses that differ little.
    """
    entry = catalog.get(name)
    if not entry.needs:
        return 1e-12
    other = on_one(entry.make(), entry=entry, loss=loss_in_another_order)
    return max(1e-12, 4 * largest_difference(other.updates, reference(name).updates))


def check_walk(entry, setting, found, mesh):
    assert found.compiled[1:] == [0, 0]
    wanted = reference(entry.name)
    assert largest_difference(found.updates, wanted.updates) <= tolerance(entry.name)
    assert largest_difference([found.params], [wanted.params]) <= 1e-12
    for updates in found.updates:
        for name, u in updates.items():
            lies = NamedSharding(mesh, SETTINGS[setting].specs[name])
            assert u.sharding.is_equivalent_to(lies, u.ndim), (name, u.sharding)
    for state in found.states[1:]:
        assert moved(found.states[0], state) == []
    assert share(found.states[0]) <= LARGEST_SHARE[setting]


@each_entry
@pytest.mark.parametrize("setting", ["8", "replicated"])
def test_explicit_axes(entry, setting):
    check_explicit_axes(entry, setting, jitted=True)


@each_outside_jit
def test_explicit_axes_outside_jit(entry):
    check_explicit_axes(entry, "2x4", jitted=False)


def check_explicit_axes(entry, setting, jitted):
    mesh = SETTINGS[setting].mesh(AxisType.Explicit)
    found = on_many(entry.make(), mesh, SETTINGS[setting].specs, entry=entry, jitted=jitted)
    check_walk(entry, setting, found, mesh)


@each_entry
def test_first_states_outside_of_set_mesh(entry):
    """The parameters have their mesh with them; JAX's own zeros would be on one device."""
    mesh, tx = SETTINGS["2x4"].mesh(AxisType.Explicit), entry.make()
    params = placed(numbers(), mesh, SETTINGS["2x4"].specs)
    with in_context(mesh):
        inside = jax.jit(tx.init)(params)
    states = [[x for x in jax.tree.leaves(s) if x.ndim] for s in (inside, jax.jit(tx.init)(params))]
    assert moved(*states) == []


@each_entry
@pytest.mark.parametrize(("setting", "jitted"), [("2x4", True)])
def test_shard_over_automatic_axes(entry, setting, jitted):
    mesh = SETTINGS[setting].mesh(AxisType.Auto)
    tx = functools.partial(gradtx.shard, entry.make())
    found = on_many(tx, mesh, SETTINGS[setting].specs, entry=entry, jitted=jitted)
    check_walk(entry, setting, found, mesh)


def expected(sharding, x):
    return x.sharding.is_equivalent_to(sharding, x.ndim)


@each_outside_jit
@pytest.mark.parametrize("setting", ["8", "2x4"])
def test_the_shardings_are_known_before(entry, setting):
    """`state_sharding` gives those that states have."""
    tx = entry.make()
    for kind in (AxisType.Explicit, AxisType.Auto):
        mesh = SETTINGS[setting].mesh(kind)
        params = placed(numbers(), mesh, SETTINGS[setting].specs)
        known = gradtx.state_sharding(tx, params)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params
        )
        assert jax.tree.leaves(known) == jax.tree.leaves(gradtx.state_sharding(tx, shapes))
        with in_context(mesh):
            init = jax.jit(tx.init, out_shardings=known)
            for state in (init(params), *([tx.init(params)] if kind == AxisType.Explicit else [])):
                assert jax.tree.structure(known) == jax.tree.structure(state)
                assert all(map(expected, jax.tree.leaves(known), jax.tree.leaves(state)))
            # Types of shapes with shardings say the same.
            if kind == AxisType.Explicit:
                of_shapes = jax.eval_shape(tx.init, shapes)
                for x, s in zip(jax.tree.leaves(of_shapes), jax.tree.leaves(known), strict=True):
                    of_x = () if x.sharding is None else x.sharding.spec
                    assert NamedSharding(mesh, jax.P(*of_x)).is_equivalent_to(s, x.ndim)


# Over automatic axes, the compiler decides. What depends on no parameter, it computes on one
# device, and sums over an axis it may keep divided or not: these are moved once, at the first step.
@each_entry
def test_automatic_axes(entry):
    check_automatic_axes(entry, "8", jitted=True)


@each_outside_jit
def test_automatic_axes_outside_jit(entry):
    check_automatic_axes(entry, "2x4", jitted=False)


def check_automatic_axes(entry, setting, jitted):
    mesh = SETTINGS[setting].mesh(AxisType.Auto)
    found = on_many(
        entry.make(), mesh, SETTINGS[setting].specs, entry=entry, jitted=jitted, number=4
    )
    wanted = reference(entry.name).updates
    assert largest_difference(found.updates[:3], wanted) <= tolerance(entry.name)
    for updates in found.updates:
        for name, u in updates.items():
            lies = NamedSharding(mesh, SETTINGS[setting].specs[name])
            assert u.sharding.is_equivalent_to(lies, u.ndim), (name, u.sharding)
    # Statistics of matrices may be whole on each device without `shard`.
    like_leaves = {x.shape for x in jax.tree.leaves(numbers())}
    slots = [x for x in jax.tree.leaves(found.states[0]) if x.shape in like_leaves]
    assert not slots or share(slots) <= 2 * LARGEST_SHARE[setting]
    # Statistics of rows have the shapes of biases.
    like_params = {x.shape for x in jax.tree.leaves(numbers()) if x.ndim > 1}
    pairs = zip(jax.tree.leaves(found.states[0]), jax.tree.leaves(found.states[1]), strict=True)
    assert all(same_sharding(a, b) for a, b in pairs if a.shape in like_params)
    for state in found.states[2:]:
        assert moved(found.states[1], state) == []
    assert found.compiled[2:] == [0, 0]


# ---- Communication ------------------------------------------------------------------------------


def is_elementwise(entry):
    """Whether the steps of a part of a leaf are that part of the leaf's steps."""
    if entry.couples_leaves or entry.needs:
        return False
    whole = gradients_of({"w": (16, 8)})
    # Norms may act only where they fall, or where they rise.
    whole = [{"w": size * g["w"]} for size in (1.0, 1e-2, 1e2) for g in whole]

    def steps(block):
        grads = [{"w": jnp.asarray(g["w"][block])} for g in whole]
        return [u["w"] for u in walk(entry.make(), grads[0], grads).updates]

    blocks = [np.s_[:8, :4], np.s_[8:, 4:]]  # what acts on rows or on columns differs, too
    parts = zip(*map(steps, blocks), strict=True)
    pairs = zip(steps(np.s_[:, :]), parts, strict=True)
    return all(
        bool(jnp.all(u[block] == part))
        for u, found in pairs
        for block, part in zip(blocks, found, strict=True)
    )


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
@each_entry
def test_elementwise_methods_do_not_communicate(entry, kind):
    """Nor does their `init`; others that treat each leaf alone add numbers up, and move nothing."""
    if entry.couples_leaves or entry.needs or uses_matrices(entry):
        return
    mesh = SETTINGS["8"].mesh(kind)
    params, tx = placed(numbers(), mesh, SETTINGS["8"].specs), entry.make()
    with in_context(mesh):
        state = jax.jit(tx.init)(params)
        found = [collectives_of(tx.init, params), collectives_of(tx.update, params, state, params)]
    if is_elementwise(entry):
        assert found == [{}, {}]
    else:
        assert set(found[0] + found[1]) <= {"all-reduce"}


def test_many_methods_are_elementwise():
    names = {entry.name for entry in ENTRIES if is_elementwise(entry)}
    assert names >= {
        "sgd",
        "adamw",
        "lion",
        "rmsprop",
        "radam",
        "adabelief",
        "yogi",
    }
    assert not names & {"lamb", "lars", "adafactor", "sm3", "muon", "prodigy", "lbfgs"}


@pytest.mark.parametrize("entry", [x for x in ENTRIES if not x.needs], ids=lambda entry: entry.name)
def test_states_are_on_the_device_of_the_parameters(entry):
    device = jax.devices()[1]
    params = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    check_on(device, entry.make(), jax.device_put(params, device))
