#!/usr/bin/env python3
"""Runs the tests of packages that use optax, with gradtx in the place of optax.

    python tests/users/run.py                    # all, an hour on 2 cores
    python tests/users/run.py numpyro flax       # some
    python tests/users/run.py flax --with-optax  # the same tests with optax itself

The packages are installed into an environment of their own, `tests/users/cache`, and their tests
come from their source distributions on PyPI. The exit code is 0 if exactly those tests fail that
EXPECTED lists, each with the reason.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = HERE / "cache"

# The version of each package, and the arguments of pytest that select what uses optax.
SUITES = {
    "numpyro": ("0.22.0", ["test/test_optimizers.py"]),
    "flax": (
        "0.12.8",
        [
            *("tests/nnx/optimizer_test.py", "tests/nnx/ema_test.py", "tests/nnx/helpers_test.py"),
            *("tests/nnx/integration_test.py", "tests/serialization_test.py"),
            *("tests/cursor_test.py", "tests/traverse_util_test.py"),
        ],
    ),
    "gpjax": ("1.0.0", ["tests/test_fit.py", "-k", "not regression"]),
    "blackjax": (
        "1.7.1",
        ["tests/vi", "tests/adaptation/test_adaptation.py", "-k", "vi or test_chees_adaptation"],
    ),
}
NEEDED = ["pytest", "absl-py", "hypothesis"]

INTEGERS = "optimizes integer parameters, which gradtx refuses, because steps would be rounded"
EXPECTED = {
    "flax": {
        "tests/nnx/helpers_test.py::TestHelpers::test_train_state": INTEGERS,
        "tests/cursor_test.py::CursorTest::test_apply_update": INTEGERS,
        "tests/cursor_test.py::CursorTest::test_find": INTEGERS,
        "tests/cursor_test.py::CursorTest::test_find_all": INTEGERS,
        "tests/cursor_test.py::CursorTest::test_hidden_change": INTEGERS,
        "tests/cursor_test.py::CursorTest::test_path": INTEGERS,
        "tests/cursor_test.py::CursorTest::test_set_and_build": INTEGERS,
        "tests/serialization_test.py::SerializationTest::test_optimizer_serialization": (
            "compares the state of sgd with a literal, in which there is no learning rate"
        ),
    },
}


def environment(names: list[str]) -> Path:
    """Returns the Python of an environment in which the packages and gradtx's needs are."""
    folder = CACHE / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    packages = [f"{name}=={SUITES[name][0]}" for name in names]
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", *packages, *NEEDED], check=True)
    return python


def source(name: str, python: Path) -> Path:
    """Returns the unpacked source distribution of a package."""
    version = SUITES[name][0]
    folder = CACHE / f"{name}-{version}"
    if not folder.exists():
        command = [str(python), "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "-d", str(CACHE), f"{name}=={version}"], check=True)
        with tarfile.open(CACHE / f"{folder.name}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return folder


def run(name: str, python: Path, with_optax: bool) -> bool:
    """Runs the tests of a package, prints what fails, and returns whether that is expected."""
    runner = [] if with_optax else ["-m", "gradtx.as_optax"]
    command = [str(python), *runner, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no"]
    result = subprocess.run(
        [*command, "--color=no", "-rfE", *SUITES[name][1]],
        cwd=source(name, python),
        env={"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.MULTILINE))
    expected = {} if with_optax else EXPECTED.get(name, {})
    last = (result.stdout.strip() or result.stderr.strip()).splitlines()[-1]
    print(f"{name} {SUITES[name][0]}, with {'optax' if with_optax else 'gradtx'}: {last}")
    for test in sorted(failed):
        print(f"  {test}\n      {expected.get(test, 'NOT EXPECTED')}")
    for test in sorted(expected.keys() - failed):
        print(f"  {test}\n      passes, and EXPECTED lists it")
    return result.returncode in (0, 1) and failed == expected.keys()


def main() -> int:
    """Runs the suites that are named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--with-optax", action="store_true", help="run them with optax itself")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in SUITES]
    if unknown:
        parser.error(f"no suite is named {unknown[0]}; there are {', '.join(SUITES)}")
    CACHE.mkdir(exist_ok=True)
    names = args.names or list(SUITES)
    python = environment(names)
    results = [run(name, python, args.with_optax) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
