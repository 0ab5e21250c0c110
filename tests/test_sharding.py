"""Optimizers over the devices of a mesh: the tests of `tests/devices`, in a process with 8 devices.

JAX makes its devices once in a process, so these tests run in others.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import xla_flags

HERE = Path(__file__).parent
FLAGS = " ".join(["--xla_force_host_platform_device_count=8", *xla_flags.CHEAP])


def run(file):
    """Runs a file of tests with 8 devices."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}
    environment |= {"JAX_ENABLE_X64": "1", "PYTHONPATH": str(HERE.parent)}
    result = subprocess.run(
        [*command, HERE / "devices" / file],
        capture_output=True,
        text=True,
        env=environment,
        cwd=HERE.parent,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_few_of_each():
    run("few.py")


# That over the catalog takes as long as the others, and is in a file of its own for pytest-xdist.
WALKS = {x.name for x in (HERE / "devices").glob("on_*.py")} - {"on_catalog.py"}


@pytest.mark.thorough
@pytest.mark.parametrize("file", sorted(WALKS))
def test_walks(file):
    run(file)
