"""States stored as codes over meshes: the codes, and the steps, are those of one device."""

import functools

import numpy as np
import pytest
from jax.sharding import AxisType
from meshes import SETTINGS, arrays, on_many, on_one

import gradtx

SHAPES = {"w": (64, 32), "v": (8, 192), "s": (2, 8, 128), "b": (16,)}  # "v": 3 blocks on 8 devices
WAYS = {
    "explicit": ("8", AxisType.Explicit, lambda tx, params: stored(tx)),
    "automatic": ("8", AxisType.Auto, lambda tx, params: stored(tx)),
    "shard": ("2x4", AxisType.Auto, lambda tx, params: gradtx.shard(stored(tx), params)),
    "around shard": ("2x4", AxisType.Auto, lambda tx, params: stored(gradtx.shard(tx, params))),
    "zero": ("replicated", AxisType.Explicit, lambda tx, params: gradtx.zero(stored(tx), "x")),
    "offload": ("2x4", AxisType.Explicit, lambda tx, params: gradtx.offload(stored(tx))),
}


def stored(tx):
    return gradtx.store(tx, {"s": "bfloat16_stochastic", "nu": "uint4", "mu": "int8"}, min_size=17)


@functools.cache
def reference():
    return on_one(stored(gradtx.adamw(0.1)), SHAPES)


@pytest.mark.parametrize("way", WAYS)
def test_codes_are_those_of_one_device(way):
    setting, kind, wrap = WAYS[way]
    mesh, specs = SETTINGS[setting].mesh(kind), SETTINGS[setting].specs
    tx = functools.partial(wrap, gradtx.adamw(0.1))
    found = on_many(tx, mesh, specs, SHAPES)
    for mine, other in ((found.updates, reference().updates), (found.states, reference().states)):
        for x, y in zip(arrays(mine), arrays(other), strict=True):
            np.testing.assert_array_equal(x, y)
    assert found.compiled[1:] == [0, 0]
