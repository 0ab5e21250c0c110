"""The benchmarks explain themselves, and measure nothing unless they are asked to."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
MODULES = {"compiling", "harness"}
"""Those that are not programs."""


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted({x.stem for x in BENCHMARKS.glob("*.py")} - MODULES))
def test_help_is_all_that_help_does(name):
    """In a process of its own, because some of them configure JAX."""
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--help"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(f"usage: {name}.py") and "Python 3" not in found.stdout
