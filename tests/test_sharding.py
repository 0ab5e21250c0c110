"""States of parameters that are sharded over devices, with the sharding in their type."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# `jax.typeof` includes the explicit sharding. The first step, in and outside `jit`, must not change
# the type of any leaf of the state, or training compiles twice.
PROGRAM = """
import jax, jax.numpy as jnp
from gradtx import catalog

def types(tree):
    return jax.tree.map(jax.typeof, tree)

mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
sharding = jax.sharding.NamedSharding(mesh, jax.P(None, "x"))
for entry in catalog.entries():
    if not entry.needs:
        tx = entry.make()
        with jax.set_mesh(mesh):
            params = jnp.zeros((2, 4, 4), jnp.float16, out_sharding=sharding)
            state = tx.init(params)
            _, later = tx.update(params, state, params)
            first = jax.jit(tx.init)(params)
            _, second = jax.jit(tx.update)(params, state, params)
        same = types(state) == types(first) == types(later) == types(second)
        print(entry.name if same else f"{entry.name} differs")
"""


@pytest.mark.thorough
def test_states_keep_their_shardings():
    environment = {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    names = result.stdout.split("\n")[:-1]
    assert {"adam", "muon", "prodigy", "dadapt_adamw"} <= {*names}
    assert not [name for name in names if name.endswith("differs")]
