"""optax's own tests, with gradtx in optax's place, file by file; see tests/peer/README.md."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PEER = Path(__file__).parent / "peer"
FILES = json.loads((PEER / "expected_tests.json").read_text())["files"]
SLOW = 3.0
"""Seconds that a file takes with optax itself from which on it is among the slow tests."""


def run(*arguments):
    command = [sys.executable, PEER / "run_peer_tests.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=PEER.parent.parent)


def cases():
    for path, told in FILES.items():
        mark = pytest.mark.slow if told["seconds"] > SLOW else pytest.mark.thorough
        yield pytest.param(path, marks=mark)


@pytest.mark.parametrize("path", list(cases()))
def test_optax_says(path):
    """What fails is listed in deviations.json with its reason, and what is listed there fails."""
    result = run(path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_public_names_and_signatures():
    result = run("--api")
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_deviation_has_a_reason():
    deviations = json.loads((PEER / "deviations.json").read_text())
    known = {test for told in FILES.values() for test in told["tests"]}
    assert set(deviations["tests"]) <= known
    for reason in [*deviations["tests"].values(), *deviations["api"].values()]:
        assert len(reason.split()) >= 4
