"""States stored as codes over meshes: the codes, and the steps, are those of one device.

So they are for rules of single entries. Where numbers are summed in another order, as in products
of matrices, or where a rounding decides, they are those of one device up to that.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from meshes import SETTINGS, arrays, largest_difference, on_many, on_one

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


# ---- Parameters in bfloat16 ---------------------------------------------------------------------

MESHES = {"explicit": ("8", AxisType.Explicit), "automatic": ("2x4", AxisType.Auto)}
HALF = {
    "stochastic_round": lambda tx: gradtx.chain(tx, gradtx.stochastic_round(3)),
    "master_weights": gradtx.master_weights,
    "kahan": gradtx.kahan,
    "kahan int8": lambda tx: gradtx.kahan(tx, "int8"),
}


def over(mesh, tx, dtype):
    """The steps over a mesh."""
    setting, kind = MESHES[mesh]
    return on_many(tx, SETTINGS[setting].mesh(kind), SETTINGS[setting].specs, SHAPES, dtype)


def in_half(name):
    return HALF[name](gradtx.store(gradtx.adamw(0.1), {"mu": "int8", "nu": "uint8"}, min_size=17))


@functools.cache
def half_reference(name):
    return on_one(in_half(name), SHAPES, jnp.bfloat16)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("name", HALF)
def test_parameters_in_half_precision(name, mesh):
    """The random bits are those of one device; where two numbers are equally near, one is taken."""
    found, wanted = over(mesh, in_half(name), jnp.bfloat16), half_reference(name)
    assert found.compiled[1:] == [0, 0]
    if name == "stochastic_round":
        for mine, other in ((found.params, wanted.params), (found.states, wanted.states)):
            for x, y in zip(arrays(mine), arrays(other), strict=True):
                np.testing.assert_array_equal(x, y)
        return
    for x, y in zip(*map(jax.tree.leaves, map(meant, (found, wanted))), strict=True):
        np.testing.assert_allclose(x, y, rtol=2.0**-13, atol=1e-5)
    for x, y in zip(arrays(found.params), arrays(wanted.params), strict=True):
        assert np.mean(x != y) < 0.02
        np.testing.assert_allclose(x.astype(float), y.astype(float), rtol=2.0**-7)


def meant(walk):
    """The parameters with what they lack."""
    state = walk.states[-1]
    if hasattr(state, "master"):
        return jax.tree.map(np.asarray, state.master)

    def whole(p, residual):
        p, residual = np.asarray(p, np.float64), np.asarray(residual)
        unit = np.exp2(np.frexp(p)[1] - 8) / 254 if residual.dtype == np.int8 else 1
        return p + residual.astype(np.float64) * unit

    return jax.tree.map(whole, walk.params, state.residual)


# ---- Methods on matrices ------------------------------------------------------------------------

FACTORS = {"left": "int8", "right": "int8"}
MATRICES = {
    "soap": ({**FACTORS, "mu": "int8", "nu": "uint8"}, ("explicit", "automatic"), 1e-4),
    "shampoo": ({**FACTORS, "*_root": "int8_nearest"}, ("explicit", "automatic"), 1e-2),
    # Rounded to 4 bits, eigenvectors that are not those of one device are others.
    "soap with bases": ({**FACTORS, "*_basis": "int4_nearest"}, ("explicit",), 1e-4),
}


@pytest.mark.parametrize(
    ("name", "mesh"), [(name, mesh) for name, (_, some, _) in MATRICES.items() for mesh in some]
)
def test_factors_of_matrices(name, mesh):
    codecs, _, error = MATRICES[name]
    tx = gradtx.store(getattr(gradtx, name.split()[0])(0.1), codecs, min_size=17)
    found, wanted = over(mesh, tx, np.float32), matrices_reference(name)
    assert largest_difference(found.updates, wanted.updates) < error
    for path, y in gradtx.state_dict(wanted.states[-1]).items():
        x, y = np.asarray(gradtx.state_dict(found.states[-1])[path]), np.asarray(y)
        if path.endswith("/seed"):
            np.testing.assert_array_equal(x, y)
        elif path.endswith("/codes") and ("/left/" in path or "/right/" in path):
            assert np.mean(x != y) < 1e-3


@functools.cache
def matrices_reference(name):
    tx = getattr(gradtx, name.split()[0])(0.1)
    return on_one(gradtx.store(tx, MATRICES[name][0], min_size=17), SHAPES, np.float32)
