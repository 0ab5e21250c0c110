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
    gradients_of,
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

jax.config.update("jax_enable_x64", True)

# A leaf that does not divide, one that divides along its second axis only, a scalar, a small one.
SHAPES = {"w": (16, 8), "odd": (5, 3), "v": (5, 24), "s": (), "b": (8,), "t": (2, 16, 3)}
WHOLE = dict.fromkeys(SHAPES, P())
MESHES = {
    "8": ({"data": 8}, WHOLE),
    "2x4": ({"model": 2, "data": 4}, {**WHOLE, "w": P("model"), "v": P(None, "model"), "b": P("data")}),
}


def two_axes(x):
    return x is not None and x.ndim == 2


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


@pytest.mark.parametrize("way", ["explicit", "automatic", "offloaded"])
@pytest.mark.parametrize("jitted", [True, False], ids=["jitted", "plain"])
@pytest.mark.parametrize("setting", MESHES)
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
    assert share(found.states[0], 48) <= (0.25 if inner == "galore" else 0.13) * (1 if setting == "8" else 2)
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(found.states[-1]) if x.ndim}
    assert kinds == {"pinned_host" if way == "offloaded" else "device"}
