"""What a user meets before the first fast step: gradtx against optax, side by side in one run.

    python benchmarks/first_use.py [--quick] [ROW ...]
    python benchmarks/first_use.py catalog [NAME ...] [--leaves 12 150 1000] [--repeats 1]

Making optimizers, first states, un-jitted steps, tracing, compiling, and the memory that stays. To
add a row, write a function and decorate it with `@row`. The second form takes each optimizer of the
catalog, and what stands beside it, through tracing and compiling; see `compiling.py`.
"""

import argparse
import concurrent.futures
import functools
import gc
import importlib
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import compiling
import jax
import jax.numpy as jnp
import optax
from harness import machine, report, side_by_side, timed
from speed import transformer

import gradtx

LIBRARIES: dict[str, Any] = {"optax": optax, "gradtx": gradtx}
ROWS: dict[str, Callable[[bool], None]] = {}
FRESH = itertools.count()
"""Numbers that make hyperparameters new, so that nothing that was kept can serve them."""


def row(function: Callable[[bool], None]) -> Callable[[bool], None]:
    """Makes a function one of the rows that this script runs; it is told whether to be quick."""
    ROWS[function.__name__] = function
    return function


# ---- Models, optimizers and steps ----------------------------------------------------------------


def model(leaves: int) -> Any:
    """Makes the parameters of a transformer: of 1 or 12 layers, or the first leaves of narrower."""
    return transformer(leaves // 12) if leaves in (12, 144) else compiling.model(leaves)


def adamw(library: Any) -> Any:
    """Makes an AdamW with a `b1` that none had before."""
    return library.adamw(1e-3, b1=0.9 + 1e-7 * next(FRESH))


def whole(library: Any) -> Any:
    """Makes what people train with: a clip, AdamW and a schedule, with numbers not seen before."""
    schedule = library.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)
    b1, bound = 0.9 + 1e-7 * next(FRESH), 1.0 + 1e-4 * next(FRESH)
    return library.chain(library.clip_by_global_norm(bound), library.adamw(schedule, b1=b1))


def step_of(library: Any, tx: Any) -> Callable[[Any, Any, Any], Any]:
    """Makes the step of a training loop: update and apply."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    return step


def unjitted(library: Any, tx: Any, params: Any, steps: int = 2) -> Any:
    """Makes a state, and takes un-jitted steps."""
    state, step, grads = tx.init(params), step_of(library, tx), params
    for _ in range(steps):
        params, state = step(params, state, grads)
    return jax.block_until_ready(params)


def jitted(library: Any, tx: Any, params: Any) -> Any:
    """Makes a state, and takes a step, both jitted."""
    state = jax.jit(tx.init)(params)
    return jax.block_until_ready(jax.jit(step_of(library, tx))(params, state, params))


def lowered(library: Any, tx: Any, params: Any, state: Any) -> Any:
    """Traces and lowers a step with donated buffers; of the state, shapes are enough."""
    step = jax.jit(step_of(library, tx), donate_argnums=(0, 1))
    return step.trace(params, state, params).lower()


def stepping(library: Any, tx: Any, params: Any, times: int) -> Callable[[], float]:
    """Makes a function that gives the seconds of a jitted step, buffers donated."""
    grads = jax.tree.map(lambda x: 0.1 * x, params)
    carry = [jax.tree.map(jnp.copy, params), tx.init(params)]
    compiled = jax.jit(step_of(library, tx), donate_argnums=(0, 1))

    def once() -> Any:
        carry[:] = compiled(*carry, grads)
        return carry[0]

    return lambda: timed(once, times)


# ---- Measuring -----------------------------------------------------------------------------------


def from_nothing(
    function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Gives the seconds of a call after JAX has forgotten all that it compiled."""
    jax.clear_caches()
    gc.collect()
    start = clock()
    function()
    return clock() - start


def compare(
    title: str,
    seconds: Callable[[Any, Any], float],
    params: Any,
    repeats: int,
    target: str = "",
    warm: int = 1,
) -> None:
    """Measures both libraries in turn, and prints medians, quartiles and the ratio.

    Args:
      title: what is measured.
      seconds: the time that it takes a library with these parameters.
      params: the parameters.
      repeats: how often it is measured.
      target: what the ratio is wanted to be.
      warm: how many rounds before these do not count.
    """
    runs = {
        name: functools.partial(seconds, library, params) for name, library in LIBRARIES.items()
    }
    report(title, side_by_side(runs, repeats, warm), "optax", target)


# ---- Tracing and compiling -----------------------------------------------------------------------


@row
def compile_step(quick: bool) -> None:
    """Compiling a step of clip + AdamW + schedule."""

    def step(library: Any, params: Any) -> Any:
        tx = whole(library)
        return lowered(library, tx, params, jax.eval_shape(tx.init, params))

    def processor(library: Any, params: Any) -> float:
        return from_nothing(step(library, params).compile, time.process_time)

    def wall(library: Any, params: Any) -> float:
        return from_nothing(step(library, params).compile)

    for leaves, was in ((144, 4.6), (200, 6.5)):
        for seconds in (processor, wall):
            title = f"compile clip + AdamW + schedule, {leaves} leaves, {seconds.__name__} time"
            target = f"at most 1.0 (was {was})"
            compare(title, seconds, model(leaves), 3 if quick else 7, target)


def lowering(library: Any, params: Any) -> float:
    """Gives the seconds of tracing and lowering a step of AdamW, caches empty."""
    tx = adamw(library)
    state = jax.eval_shape(tx.init, params)
    return from_nothing(lambda: lowered(library, tx, params, state))


@row
def trace_and_lower(quick: bool) -> None:
    """Tracing and lowering, caches empty: the step alone, and with the making of the state."""

    def init_and_step(library: Any, params: Any) -> float:
        tx = adamw(library)

        def run() -> None:
            traced = jax.jit(tx.init).trace(params)
            traced.lower()
            lowered(library, tx, params, traced.out_info)

        return from_nothing(run)

    targets = {lowering: "at most 0.26", init_and_step: "at most 0.3 (was 0.51)"}
    for seconds, target in targets.items():
        what = "init and step" if seconds is init_and_step else "step"
        title = f"trace + lower {what}, AdamW, 144 leaves, caches empty"
        compare(title, seconds, model(144), 7 if quick else 21, target)


@row
def many_equal_leaves(quick: bool) -> None:
    """Tracing and lowering at 10,000 equal leaves; and the search for what repeats in them."""
    n = 1_000 if quick else 10_000
    try:
        blocks = importlib.import_module("gradtx.engine.blocks")
    except ImportError:
        print(f"\nrepeated_block alone, {n:,} leaves: there is none (was 64 s at 10,000)")
    else:
        signatures = [f"shape {i % 12}" for i in range(n)]
        taken = timed(lambda: blocks.repeated_block(signatures) and 0)
        print(
            f"\nrepeated_block alone, {n:,} leaves: {taken:.3f} s\n  target: at most 0.1 s (was 64)"
        )

    title = f"trace + lower step, AdamW, {n:,} equal leaves, caches empty"
    compare(title, lowering, [jnp.ones((4, 4))] * n, 3, "at most 0.3", warm=0)


# ---- Making optimizers and states, and un-jitted steps -------------------------------------------


@row
def six_optimizers(quick: bool) -> None:
    """Six that differ in `b1` and the bound, made one after another, and what one more adds."""

    def six(library: Any, params: Any) -> float:
        return from_nothing(lambda: [unjitted(library, whole(library), params) for _ in range(6)])

    def one_more(library: Any, params: Any) -> float:
        return timed(lambda: unjitted(library, whole(library), params))

    for leaves in (12,) if quick else (12, 144):
        told = f"two un-jitted steps each, {leaves} leaves"
        title = f"six optimizers that differ, {told}, caches empty"
        compare(title, six, model(leaves), 2 if quick else 5, "at most 3 (was 16)")
        title = f"one more such optimizer, {told}"
        compare(title, one_more, model(leaves), 5 if quick else 11, "at most 3")


@row
def init(quick: bool) -> None:
    """Making AdamW's first state: its shapes alone, and un-jitted."""
    txs = {library: library.adamw(1e-3) for library in LIBRARIES.values()}

    def shapes(library: Any, params: Any) -> float:
        return timed(lambda: jax.eval_shape(txs[library].init, params) and 0)

    def arrays(library: Any, params: Any) -> float:
        return timed(lambda: txs[library].init(params))

    was = {12: ("", ""), 144: (" (was 1.4)", " (was 1.7)"), 1000: (" (was 2.7)", " (was 1.9)")}
    for leaves in (12, 144) if quick else (12, 144, 1000):
        told, repeats = f"AdamW, {leaves} leaves", 7 if quick else 21
        targets = (f"at most 0.4{was[leaves][0]}", f"at most 0.15{was[leaves][1]}")
        compare(f"eval_shape(init), {told}", shapes, model(leaves), repeats, targets[0])
        compare(f"un-jitted init, {told}", arrays, model(leaves), repeats, targets[1])


@row
def unjitted_step(quick: bool) -> None:
    """An un-jitted step of clip + AdamW + schedule, once all is compiled."""
    txs = {library: whole(library) for library in LIBRARIES.values()}
    states: dict[Any, Any] = {}

    def seconds(library: Any, params: Any) -> float:
        tx = txs[library]
        return timed(lambda: step_of(library, tx)(params, states[library], params), 5)

    for leaves in (12, 144) if quick else (12, 144, 1000):
        params = model(leaves)
        states.update({library: tx.init(params) for library, tx in txs.items()})
        title = f"un-jitted step, clip + AdamW + schedule, {leaves} leaves"
        compare(title, seconds, params, 7 if quick else 21, "at most 0.08 (was 0.21)", warm=2)


@row
def first_step(quick: bool) -> None:
    """The first step of all, from making the optimizer on, caches empty."""

    def first_unjitted(library: Any, params: Any) -> float:
        return from_nothing(lambda: unjitted(library, whole(library), params, steps=1))

    def first_jitted(library: Any, params: Any) -> float:
        return from_nothing(lambda: jitted(library, whole(library), params))

    for leaves in (12,) if quick else (12, 144, 1000):
        told = f"clip + AdamW + schedule, {leaves} leaves, caches empty"
        repeats = 3 if quick or leaves == 1000 else 7
        compare(f"first un-jitted step, {told}", first_unjitted, model(leaves), repeats)
        compare(f"first jitted step, {told}", first_jitted, model(leaves), repeats, "at most 1.0")


# ---- Jitted steps --------------------------------------------------------------------------------


@row
def jitted_step(quick: bool) -> None:
    """A jitted step of AdamW: few leaves, many, and large ones."""
    targets = {12: 1.0, 144: 0.9} if quick else {12: 1.0, 144: 0.9, 1000: 0.85}
    models = [(f"{n} leaves", model(n), 10, target) for n, target in targets.items()]
    if not quick:
        large = {f"w{i}": jnp.ones((2048, 2048)) for i in range(8)}
        models.append(("34 million parameters in 8 leaves", large, 3, 1.0))
    for told, params, times, target in models:
        runs = {
            name: stepping(library, library.adamw(1e-3), params, times)
            for name, library in LIBRARIES.items()
        }
        found = side_by_side(runs, 11 if quick else 31)
        report(f"jitted step, AdamW, {told}", found, "optax", f"at most {target}")


@row
def scan(quick: bool) -> None:
    """Steps of AdamW within `lax.scan` against single jitted calls: gradtx alone."""
    steps, tx = 20, gradtx.adamw(1e-3)

    def scanned(params: Any) -> Callable[[], float]:
        grads, step = jax.tree.map(lambda x: 0.1 * x, params), step_of(gradtx, tx)

        def many(params: Any, state: Any) -> Any:
            return jax.lax.scan(
                lambda carry, _: (step(*carry, grads), None), (params, state), length=steps
            )[0]

        carry = [jax.tree.map(jnp.copy, params), tx.init(params)]
        compiled = jax.jit(many, donate_argnums=(0, 1))

        def once() -> Any:
            carry[:] = compiled(*carry)
            return carry[0]

        return lambda: timed(once) / steps

    for leaves in (144,) if quick else (12, 144, 1000):
        params = model(leaves)
        runs = {"single calls": stepping(gradtx, tx, params, steps), "scan": scanned(params)}
        found = side_by_side(runs, 7 if quick else 21)
        report(f"a step within scan, AdamW, {leaves} leaves", found, "single calls", "about 0.25")


# ---- Memory --------------------------------------------------------------------------------------


def resident() -> float:
    """Gives the MiB of this process that are in memory."""
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def in_a_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function where nothing was compiled or kept before."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def grown(library: str, counts: list[int]) -> list[float]:
    """Gives the MiB that so many optimizers have added, and what stays without JAX's caches."""
    params = {"w": jnp.ones((4, 4)), "b": jnp.ones(4)}
    unjitted(LIBRARIES[library], adamw(LIBRARIES[library]), params)
    start, made, found = resident(), 0, []
    for count in counts:
        for _ in range(count - made):
            unjitted(LIBRARIES[library], adamw(LIBRARIES[library]), params)
        made = count
        found.append(resident() - start)
    jax.clear_caches()
    return [*found, resident() - start]


@row
def memory_over_many(quick: bool) -> None:
    """What stays of optimizers that were made, took two un-jitted steps, and were dropped."""
    counts = [20, 50, 100] if quick else [100, 1000, 2000]
    found = in_a_new_process(grown, "gradtx", counts)
    told = [f"{x:.0f} MiB after {n:,}" for n, x in zip(counts, found[:-1], strict=True)]
    print("\nmemory over AdamWs that differ in b1, two un-jitted steps each, a small tree, gradtx")
    print(f"  {', '.join(told)}; {found[-1]:.0f} MiB after jax.clear_caches()")
    print("  target: levels off below 100 MB, and jax.clear_caches() frees it (was 2.2 MiB each)")


MADE_AGAIN: dict[str, Callable[[Any], Any]] = {
    "clip + AdamW + schedule, each another": whole,
    "adam(0.1), all alike": lambda library: library.adam(0.1),
    "MultiSteps(adam(0.1), 2), all alike": lambda library: library.MultiSteps(library.adam(0.1), 2),
}


def kept(library: str, what: str, leaves: int, count: int) -> tuple[float, float]:
    """Gives the seconds and the MiB that each further one of some optimizers takes."""
    params = model(leaves)

    def once() -> Any:
        tx = MADE_AGAIN[what](LIBRARIES[library])
        return unjitted(LIBRARIES[library], tx, params)

    once()
    once()
    memory = resident()
    seconds = timed(once, count)
    return seconds, (resident() - memory) / count


@row
def made_again(quick: bool) -> None:
    """What an optimizer takes that is made again: its time, and the memory that stays."""
    targets = ("at most 3 (was 1 s, 2.2 MiB)", "", "as Adam alone (was 0.75 s, 1 MiB)")
    for leaves in (12,) if quick else (12, 144):
        for what, target in zip(MADE_AGAIN, targets, strict=True):
            print(f"\nmade again: {what}; two un-jitted steps each, {leaves} leaves")
            for library in LIBRARIES:
                found = in_a_new_process(kept, library, what, leaves, 3 if quick else 20)
                print(f"  {library:<28} {found[0] * 1e3:9.3f} ms, {found[1]:7.3f} MiB each")
            if target:
                print(f"  target: {target}")


def main() -> None:
    """Runs the rows that were named, or all; or walks the catalog."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}, or catalog")
    parser.add_argument("--quick", action="store_true", help="fewer leaves, fewer repeats")
    parser.add_argument("--leaves", type=int, nargs="+", default=[12, 150, 1000])
    parser.add_argument("--repeats", type=int, default=1, help="how often the catalog is compiled")
    given = parser.parse_args()
    print(machine("jax", "optax", "gradtx", "numpy"))
    if given.names[:1] == ["catalog"]:
        compiling.walk(given.leaves, given.names[1:], given.repeats)
        return
    unknown = [name for name in given.names if name not in ROWS]
    if unknown:
        parser.error(f"no row is named {unknown[0]!r}; there are {', '.join(ROWS)}, and catalog")
    for name in given.names or ROWS:
        ROWS[name](given.quick)


if __name__ == "__main__":
    main()
