"""The tests of packages that use optax, with gradtx in its place; see tests/users/run.py."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "users" / "run.py"


@pytest.mark.slow
@pytest.mark.parametrize("package", ["numpyro", "flax", "gpjax", "blackjax"])
def test_suites_of_users(package):
    command = [sys.executable, RUN, package]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
