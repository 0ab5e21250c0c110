"""What all tests share: which run by default, how programs are compiled and kept, float64, plots.

`pytest` runs the default tests; `.ci/thorough` also those with the mark `thorough`:

- in a matrix of cases, what others represent: representatives.py chooses these;
- the tests of single methods and tools: `SINGLE` below, unless the call names their file or folder.

What has the mark `slow` takes very long: `pytest -m slow`.
"""

import gc
import os
from pathlib import Path

import jax
import pytest
import xla_flags

# JAX reads the variable when it makes its backend. Whoever sets it decides.
os.environ.setdefault("XLA_FLAGS", " ".join(xla_flags.CHEAP))

# Compiled code is kept between runs, in a folder that git ignores.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# Tests make few cycles and keep millions of objects, and JAX adds its own collection to each of
# Python's: with the default of 700 allocations they took 50 of 1,100 processor seconds.
gc.set_threshold(100_000, 20, 50)

os.environ.setdefault("MPLBACKEND", "Agg")  # no window, also in processes that tests start


def pytest_addoption(parser):
    parser.addoption(
        "--runtime-types",
        action="store_true",
        help="check the annotations of gradtx.engine, losses and numerics at every call",
    )


def pytest_configure(config):
    if config.getoption("--runtime-types"):
        from jaxtyping import install_import_hook

        # Before any of them is imported.
        checked = ["gradtx.engine", "gradtx.losses", "gradtx.matrices", "gradtx.numerics"]
        install_import_hook(checked, "runtime_types.checked")


# The tests of single methods and tools. The default tests see each by its doctest, and an optimizer
# by its reference and the tests of the whole catalog.
SINGLE = (
    "assignment",
    "crosschecking",
    "draw",
    "engine/test_compiled_size.py",
    "experimental",
    "gradcheck",
    "linear_algebra",
    "linesearch",
    "microbatching",
    "optimizers",
    "perturbations",
    "projections",
    "racing",
    "test_lr_range_test.py",
    "test_minimize.py",
    "test_second_order.py",
    "transforms/test_lookahead.py",
    "transforms/test_mechanic.py",
    "transforms/test_per_example.py",
    "transforms/test_privacy.py",
    "transforms/test_sam.py",
)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(config, items):
    """Marks the tests of `SINGLE` as thorough, unless the call names their folder or file."""
    tests = Path(__file__).parent
    moved = [tests / x for x in SINGLE if not any(f"tests/{x}" in a for a in config.args)]
    for item in items:
        if any(item.path.is_relative_to(path) for path in moved):
            item.add_marker(pytest.mark.thorough)


def collect_garbage():
    """Collects it, and leaves what is alive out of the collections that Python starts."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def pytest_collection_finish():
    collect_garbage()  # a million objects are alive: the tests


collect_ignore = ["peer"]  # a runner of its own, and optax's tests, which test_peer.py runs
if "host_platform_device_count" not in os.environ["XLA_FLAGS"]:
    collect_ignore.append("devices")  # for several devices; test_sharding.py runs them
else:
    # Without `jit`, each operation over several devices is a program. Two at a time can wait for
    # each other's threads, and XLA aborts after 40 seconds.
    jax.config.update("jax_cpu_enable_async_dispatch", False)


compiled = []


def note(event, seconds, **kwargs):
    """Listens to JAX for what it compiles."""
    if event.endswith("backend_compile_duration"):
        compiled.append(event)


jax.monitoring.register_event_duration_secs_listener(note)


@pytest.fixture(autouse=True)
def forget():
    """Drops compiled programs when there are thousands of them, for the memory that they take."""
    yield
    if len(compiled) > 2000:
        compiled.clear()
        jax.clear_caches()
        collect_garbage()


@pytest.fixture
def x64():
    """Makes float64 the default float while a test runs."""
    with jax.enable_x64(True):
        yield
