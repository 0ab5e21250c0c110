"""Zeros are what `jnp.zeros_like` returns, wherever they are traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx import numerics, tree

ARRAYS = {
    "float32": np.ones((2, 3), np.float32),
    "bfloat16": np.ones((2, 3), jnp.bfloat16),
    "complex": np.ones((2, 3), np.complex64),
    "integer": np.ones(3, np.int8),
    "bool": np.ones(3, bool),
    "scalar": np.float32(1),
    "weak": 1.0,
    "empty": np.ones((0, 3), np.float32),
}


def mesh(kind):
    return jax.make_mesh((1,), ("x",), axis_types=(kind,))


def on_mesh(kind):
    def within(make):
        def on(x):
            with jax.set_mesh(mesh(kind)):
                return jax.jit(make)(jax.device_put(x, NamedSharding(mesh(kind), PartitionSpec())))

        return on

    return within


def per_shard(make):
    some = PartitionSpec()
    return jax.jit(jax.shard_map(make, mesh=mesh(AxisType.Explicit), in_specs=some, out_specs=some))


WITHIN = {
    "nothing": lambda make: make,
    "jit": jax.jit,
    "vmap": lambda make: lambda x: jax.vmap(make)(jnp.stack([x, x])),
    "vmap in jit": lambda make: jax.jit(lambda x: jax.vmap(make)(jnp.stack([x, x]))),
    "explicit axes": on_mesh(AxisType.Explicit),
    "automatic axes": on_mesh(AxisType.Auto),
    "shard_map": per_shard,
}


def made(make, within, x):
    """Returns the type of zeros where they are made, and their values outside."""
    types = []

    def noted(x):
        zeros = make(x)
        types.append(jax.typeof(zeros))
        return zeros

    zeros = within(noted)(x)
    return types, jax.typeof(zeros), np.asarray(zeros).tolist()


@pytest.mark.parametrize("within", WITHIN.values(), ids=WITHIN)
@pytest.mark.parametrize("x", ARRAYS.values(), ids=ARRAYS)
def test_zeros_are_those_of_jax(x, within):
    for dtype in (None, jnp.bfloat16, np.int32):
        expected = made(lambda x, d=dtype: jnp.zeros_like(x, dtype=d), within, x)
        assert made(lambda x, d=dtype: tree.zeros_like(x, d), within, x) == expected
    if jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        real = jnp.finfo(jnp.result_type(x)).dtype
        expected = made(lambda x: jnp.zeros_like(x, dtype=real), within, x)
        assert made(lambda x: numerics.real_full_like(jnp.asarray(x), 0), within, x) == expected


@pytest.mark.parametrize("within", ["nothing", "jit"])
def test_zeros_of_a_wide_dtype_are_refused_as_by_jax(within):
    within = WITHIN[within]
    for make in (jnp.zeros_like, tree.zeros_like):
        with pytest.warns(UserWarning, match="float64 requested"):
            assert within(lambda x, of=make: of(x, "float64"))(np.float32(1)).dtype == np.float32


def test_zeros_of_a_key_are_as_by_jax():
    found = []
    for make in (jnp.zeros_like, tree.zeros_like):
        try:
            found.append(str(jax.typeof(jax.jit(make)(jax.random.key(0)))))
        except Exception as e:
            found.append((type(e), str(e)))
    assert found[0] == found[1]
