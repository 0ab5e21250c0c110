"""Side-by-side timing, shared by all benchmarks."""

import argparse
import gc
import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help is the docstring of a script."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=form)


def machine(*modules: str) -> str:
    """Returns the machine and the versions of the measurements."""
    try:
        with open("/proc/cpuinfo") as f:
            cpu = next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    devices = ", ".join(sorted({d.device_kind for d in jax.devices()}))
    versions = [f"Python {platform.python_version()}"]
    for name in modules:
        try:
            module = importlib.import_module(name)
            version = getattr(module, "__version__", "") or importlib.metadata.version(name)
            versions.append(f"{name} {version}")
        except ImportError:
            versions.append(f"{name} not installed")
    return f"{cpu}, {os.cpu_count()} cores; JAX on {devices}; {', '.join(versions)}"


def side_by_side(
    runs: Mapping[str, Callable[[], float]], repeats: int, warm: int = 1
) -> dict[str, np.ndarray]:
    """Runs all candidates in each of several rounds, so that changes of load affect them equally.

    Each candidate returns its own duration in seconds, so that it can exclude its setup. The order
    changes from round to round, because a candidate can affect the next one.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for i in range(warm + repeats):
        for name in order:
            gc.collect()
            seconds = runs[name]()
            if i >= warm:
                found[name].append(seconds)
        order = order[1:] + order[:1]
    return {name: np.array(seconds) for name, seconds in found.items()}


def timed(function: Callable[[], object], times: int = 1) -> float:
    """Returns the seconds of one call, the mean of several."""
    start = time.perf_counter()
    for _ in range(times):
        jax.block_until_ready(function())
    return (time.perf_counter() - start) / times


def report(title: str, found: Mapping[str, np.ndarray], against: str, target: str = "") -> None:
    """Prints medians and quartiles, and those of the ratio to one candidate."""
    print(f"\n{title}")
    base = found[against]
    for name, seconds in found.items():
        low, median, high = np.percentile(seconds, [25, 50, 75]) * 1e3
        line = f"  {name:<28} {median:9.3f} ms  ({low:.3f} to {high:.3f})"
        if name != against:
            a, b, c = np.percentile(seconds / base, [25, 50, 75])
            line += f"   {b:.3f} of {against} ({a:.3f} to {c:.3f})"
        print(line)
    if target:
        print(f"  target: {target}")


def write_between(page: Path, name: str, text: str) -> None:
    """Writes a text into a page, between the marks `<!-- name -->` and `<!-- /name -->`."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.read_text().partition(first)
    _, closed, after = rest.partition(last)
    if not (found and closed):
        raise SystemExit(f"{page} must have the marks {first} and {last}")
    page.write_text(f"{before}{first}\n{text}\n{last}{after}")
