"""What all tests share: a cache of compiled code, float64 on request, and a backend for plots."""

import gc
import itertools
import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

# XLA cuts each program into modules for its threads; tests compile thousands of programs that are
# too small for it, on two cores. It is read when JAX makes its backend. Numbers do not change.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_cpu_parallel_codegen_split_count=1"
).strip()

# Compiled code is kept between runs, in a folder that git ignores.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

os.environ.setdefault("MPLBACKEND", "Agg")  # no window, also in processes that tests start


def pytest_addoption(parser):
    parser.addoption(
        "--runtime-types",
        action="store_true",
        help="check the annotations of gradtx.engine and gradtx.losses at every call",
    )


def pytest_configure(config):
    if config.getoption("--runtime-types"):
        # Before any of them is imported.
        install_import_hook(["gradtx.engine", "gradtx.losses"], "runtime_types.checked")


collect_ignore = ["peer"]  # a runner of its own, and optax's tests, which test_peer.py runs


TESTS_RUN = itertools.count(1)


@pytest.fixture(autouse=True)
def forget():
    """Drops compiled programs now and then: with thousands of them everything becomes slow."""
    yield
    if next(TESTS_RUN) % 100 == 0:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Makes float64 the default float while a test runs."""
    with jax.enable_x64(True):
        yield
