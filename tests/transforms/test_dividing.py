"""`shard` and `zero` on a mesh of one device; `tests/devices` has more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import gradtx

W = jnp.arange(1.0, 33.0).reshape(4, 8) / 32


def on_mesh(kind):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(kind,))
    return jax.device_put(W, NamedSharding(mesh, P("x")))


def two_steps(tx, params, **extra):
    state, found = tx.init(params), []
    for _ in range(2):
        updates, state = tx.update(params**2, state, params, **extra)
        found.append(updates)
    return found


@pytest.mark.parametrize("name", ["muon", "galore", "adafactor", "lamb"])
def test_a_mesh_of_one_device(name):
    tx = getattr(gradtx, name)(0.1)
    want = two_steps(tx, W)
    automatic = on_mesh(AxisType.Auto)
    for found in (
        two_steps(tx, on_mesh(AxisType.Explicit)),
        two_steps(tx, automatic),
        two_steps(gradtx.shard(tx, automatic), automatic),
        two_steps(gradtx.zero(tx, "x", automatic), automatic),
    ):
        np.testing.assert_allclose(found, want, rtol=1e-5)


@pytest.mark.parametrize("value", [1.5, jnp.float32(1.5)])
def test_extra_arguments_are_not_taken_for_parameters(value):
    """The parameters are one array, and so is the value, with fewer axes."""
    params = on_mesh(AxisType.Auto)
    tx = gradtx.shard(gradtx.polyak_sgd(1.0), params)
    want = two_steps(gradtx.polyak_sgd(1.0), W, value=value)
    np.testing.assert_allclose(two_steps(tx, params, value=value), want, rtol=1e-6)
