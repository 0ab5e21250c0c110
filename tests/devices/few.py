"""A method of each kind over explicit axes, and each wrapper for devices: what the walks do."""

import contextlib
import functools

import jax
import pytest
from jax.sharding import AxisType
from meshes import (
    SETTINGS,
    check_on,
    largest_difference,
    moved,
    numbers,
    on_many,
    on_one,
    placed,
    share,
)

import gradtx

OPTIMIZERS = {
    "leafwise": lambda: gradtx.adamw(0.1),
    "matrixwise": lambda: gradtx.inject_hyperparams(gradtx.muon)(0.1),
    "coupled": lambda: gradtx.prodigy(1.0),
}
WITH_KEYS = {
    "leafwise, drawn": lambda: gradtx.gravity(0.1),
    "leafwise, noise": lambda: gradtx.noisy_sgd(0.1),
    "matrixwise, drawn": lambda: gradtx.kron(0.1),
}
WAYS = {
    "explicit": ("2x4", AxisType.Explicit, lambda tx: tx),
    "shard": ("2x4", AxisType.Auto, lambda tx: functools.partial(gradtx.shard, tx)),
    "zero": ("replicated", AxisType.Explicit, lambda tx: gradtx.zero(tx, "x")),
    "offload": ("2x4", AxisType.Explicit, gradtx.offload),
}


@functools.cache
def reference(name):
    return on_one(OPTIMIZERS[name]())


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("way", WAYS)
def test_steps(name, way):
    setting, kind, wrap = WAYS[way]
    mesh, specs = SETTINGS[setting].mesh(kind), SETTINGS[setting].specs
    found = on_many(wrap(OPTIMIZERS[name]()), mesh, specs)
    assert largest_difference(found.updates, reference(name).updates) <= 1e-12
    assert found.compiled[1:] == [0, 0]
    params = placed(numbers(), mesh, specs)
    assert all(moved(params, updates) == [] for updates in found.updates)
    assert all(moved(found.states[0], state) == [] for state in found.states[1:])
    assert share(found.states[0]) <= 0.18


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("way", ["explicit", "zero"])
def test_steps_outside_of_set_mesh(name, way):
    """The arrays have their mesh with them: nothing is refused, or put whole on one device."""
    setting, kind, wrap = WAYS[way]
    mesh, specs = SETTINGS[setting].mesh(kind), SETTINGS[setting].specs
    tx, outside = wrap(OPTIMIZERS[name]()), contextlib.nullcontext
    found = on_many(tx, mesh, specs, context=outside)
    inside = on_many(tx, mesh, specs)
    assert largest_difference(found.updates, reference(name).updates) <= 1e-12
    assert moved(inside.updates[0], found.updates[0]) == []
    for state in found.states:
        assert moved(inside.states[0], state) == []


@pytest.mark.parametrize(
    "make", {**OPTIMIZERS, **WITH_KEYS}.values(), ids={**OPTIMIZERS, **WITH_KEYS}
)
@pytest.mark.parametrize("number", [0, 1])
def test_states_are_on_the_device_of_the_parameters(make, number):
    device = jax.devices()[number]
    check_on(device, make(), jax.device_put(numbers(), device))
