"""What a user meets before the first fast step: gradtx against optax, side by side in one run.

    python benchmarks/first_use.py [--quick] [ROW ...]
    python benchmarks/first_use.py catalog [--leaves 12 150 1000] [--repeats 1] [NAME ...]

Making optimizers, first states, un-jitted steps, tracing, compiling, and the memory that stays. To
add a row, write a function and decorate it with `@row`. The second form takes each optimizer of the
catalog, and what stands beside it, through tracing and compiling; see `compiling.py`.
"""

import argparse
import concurrent.futures
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


# ---- Models and optimizers -----------------------------------------------------------------------


def model(leaves: int) -> Any:
    """Makes a transformer's parameters: one layer, twelve, or the first leaves of more, narrower."""
    if leaves in (12, 144):
        return transformer(leaves // 12)
    return compiling.model(leaves)


def adamw(library: Any) -> Any:
    """Makes an AdamW with a `b1` that none had before."""
    return library.adamw(1e-3, b1=0.9 + 1e-7 * next(FRESH))


def whole(library: Any) -> Any:
    """Makes what people train with: a clip, AdamW and a schedule, none of them seen before."""
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
    """Makes a state and takes un-jitted steps."""
    state, step, grads = tx.init(params), step_of(library, tx), params
    for _ in range(steps):
        params, state = step(params, state, grads)
    return jax.block_until_ready(params)


def lowered(library: Any, tx: Any, params: Any, with_init: bool = False) -> Any:
    """Traces and lowers a step with donated buffers, and the making of the first state if asked."""
    if with_init:
        jax.jit(tx.init).trace(params).lower()
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(step_of(library, tx), donate_argnums=(0, 1))
    return step.trace(params, state, params).lower()


def compare(
    title: str,
    seconds: Callable[[Any], float],
    repeats: int,
    target: str,
    warm: int = 1,
) -> None:
    """Measures both libraries in turn, and prints medians, quartiles and the ratio.

    Args:
      title: what is measured.
      seconds: the time that it takes a library.
      repeats: how often it is measured.
      target: what the ratio is wanted to be.
      warm: how many rounds before do not count.
    """
    runs = {name: lambda library=library: seconds(library) for name, library in LIBRARIES.items()}
    report(title, side_by_side(runs, repeats, warm), "optax", target)


def from_nothing(
    function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Gives the seconds of a call after JAX has forgotten all that it compiled."""
    jax.clear_caches()
    gc.collect()
    start = clock()
    function()
    return clock() - start


# ---- Compiling -----------------------------------------------------------------------------------


@row
def compile_step(quick: bool) -> None:
    """Compiling a step of clip + AdamW + schedule."""
    clocks = {"processor": time.process_time, "wall": time.perf_counter}
    for leaves in (144, 200):
        params = model(leaves)
        for name, clock in clocks.items():

            def seconds(library: Any, params: Any = params, clock: Any = clock) -> float:
                low = lowered(library, whole(library), params)
                return from_nothing(low.compile, clock)

            title = f"compile clip + AdamW + schedule, {leaves} leaves, {name} time"
            compare(title, seconds, 3 if quick else 7, "at most 1.0 (was 4.6 at 144, 6.5 at 200)")


@row
def trace_and_lower(quick: bool) -> None:
    """Tracing and lowering, caches empty: the step alone, and with the making of the state."""
    params = model(144)
    for with_init, target in ((False, "at most 0.26"), (True, "at most 0.3 (was 0.51)")):

        def seconds(library: Any, with_init: bool = with_init) -> float:
            tx = adamw(library)
            return from_nothing(lambda: lowered(library, tx, params, with_init))

        what = "init and step" if with_init else "step"
        title = f"trace + lower {what}, AdamW, 144 leaves, caches empty"
        compare(title, seconds, 7 if quick else 21, target)


@row
def ten_thousand_leaves(quick: bool) -> None:
    """Tracing and lowering at 10,000 equal leaves; and the search for what repeats in them."""
    try:
        blocks = importlib.import_module("gradtx.engine.blocks")
    except ImportError:
        print("\nrepeated_block, 10,000 leaves: there is none any more (was 64 s)")
    else:
        n = 1_000 if quick else 10_000
        signatures = [(i % 12, "float32") for i in range(n)]
        seconds = timed(lambda: blocks.repeated_block(signatures) and 0)
        print(f"\nrepeated_block alone, {n:,} leaves: {seconds:.3f} s\n  target: at most 0.1 s")
    n = 1_000 if quick else 10_000
    params = [jnp.ones((4, 4))] * n

    def trace(library: Any) -> float:
        tx = adamw(library)
        return from_nothing(lambda: lowered(library, tx, params))

    title = f"trace + lower AdamW, {n:,} equal leaves, caches empty"
    compare(title, trace, 3, "at most 0.3", warm=int(quick))


# ---- Making optimizers, states and un-jitted steps ----------------------------------------------


@row
def six_optimizers(quick: bool) -> None:
    """Six that differ in `b1` and the bound, made one after another, and what a seventh adds."""
    for leaves in (12,) if quick else (12, 144):
        params = model(leaves)

        def six(library: Any, params: Any = params) -> None:
            for _ in range(6):
                unjitted(library, whole(library), params)

        title = f"six optimizers that differ, two un-jitted steps each, {leaves} leaves"
        compare(
            f"{title}, caches empty",
            lambda library, six=six: from_nothing(lambda: six(library)),
            2 if quick else 5,
            "at most 3 (was 16)",
        )

        def seventh(library: Any, params: Any = params) -> float:
            return timed(lambda: unjitted(library, whole(library), params))

        compare(f"one more such, {leaves} leaves", seventh, 5 if quick else 11, "at most 3")


@row
def init(quick: bool) -> None:
    """Making AdamW's first state: its shapes alone, and un-jitted."""
    targets = {12: "", 144: "at most 0.4 and 0.15 (was 1.4 and 1.7)"}
    targets[1000] = "at most 0.4 and 0.15 (was 2.7 and 1.9)"
    for leaves in (12, 144) if quick else (12, 144, 1000):
        params = model(leaves)
        txs = {id(library): library.adamw(1e-3) for library in LIBRARIES.values()}
        repeats = 7 if quick else 21

        def shapes(library: Any, params: Any = params, txs: Any = txs) -> float:
            return timed(lambda: jax.eval_shape(txs[id(library)].init, params) and 0)

        def arrays(library: Any, params: Any = params, txs: Any = txs) -> float:
            return timed(lambda: txs[id(library)].init(params))

        compare(f"eval_shape(init), AdamW, {leaves} leaves", shapes, repeats, targets[leaves])
        compare(f"un-jitted init, AdamW, {leaves} leaves", arrays, repeats, targets[leaves])


@row
def unjitted_step(quick: bool) -> None:
    """An un-jitted step of clip + AdamW + schedule, once all is compiled."""
    for leaves in (12, 144) if quick else (12, 144, 1000):
        params = model(leaves)
        runs = {}
        for name, library in LIBRARIES.items():
            tx = whole(library)
            state, step = tx.init(params), step_of(library, tx)
            runs[name] = lambda f=step, p=params, s=state: timed(lambda: f(p, s, p), 5)
        title = f"un-jitted step, clip + AdamW + schedule, {leaves} leaves"
        target = "at most 0.08 (was 0.21 at 144)"
        report(title, side_by_side(runs, 7 if quick else 21, warm=2), "optax", target)


@row
def first_step(quick: bool) -> None:
    """The first step of all, from making the optimizer on, caches empty: un-jitted and jitted."""
    for leaves in (12,) if quick else (12, 144, 1000):
        params = model(leaves)
        repeats = 3 if quick or leaves == 1000 else 7

        def eager(library: Any, params: Any = params) -> float:
            return from_nothing(lambda: unjitted(library, whole(library), params, steps=1))

        def jitted(library: Any, params: Any = params) -> float:
            def run() -> None:
                tx = whole(library)
                state = jax.jit(tx.init)(params)
                jax.block_until_ready(jax.jit(step_of(library, tx))(params, state, params))

            return from_nothing(run)

        compare(f"first un-jitted step, {leaves} leaves, caches empty", eager, repeats, "")
        compare(f"first jitted step, {leaves} leaves, caches empty", jitted, repeats, "at most 1")


# ---- Jitted steps -------------------------------------------------------------------------------


def stepping(library: Any, tx: Any, params: Any, times: int) -> Callable[[], float]:
    """Makes a function that gives the seconds of a jitted step of AdamW, buffers donated."""
    grads = jax.tree.map(lambda x: 0.1 * x, params)
    carry = [jax.tree.map(jnp.copy, params), tx.init(params)]
    compiled = jax.jit(step_of(library, tx), donate_argnums=(0, 1))

    def once() -> Any:
        carry[:] = compiled(*carry, grads)
        return carry[0]

    return lambda: timed(once, times)


@row
def jitted_step(quick: bool) -> None:
    """A jitted step of AdamW: few leaves, many, and large ones."""
    models = {f"{n} leaves": (model(n), 10) for n in ((12, 144) if quick else (12, 144, 1000))}
    if not quick:
        models["33 million parameters in 8 leaves"] = (
            {f"w{i}": jnp.ones((2048, 2048)) for i in range(8)},
            3,
        )
    targets = {"144 leaves": "at most 0.9", "1000 leaves": "at most 0.85"}
    for title, (params, times) in models.items():
        runs = {
            name: stepping(library, library.adamw(1e-3), params, times)
            for name, library in LIBRARIES.items()
        }
        found = side_by_side(runs, 11 if quick else 31)
        report(f"jitted step, AdamW, {title}", found, "optax", targets.get(title, "at most 1.0"))


@row
def scan(quick: bool) -> None:
    """Steps within `lax.scan` against single jitted calls: gradtx alone."""
    steps = 20
    for leaves in (144,) if quick else (12, 144, 1000):
        params, tx = model(leaves), gradtx.adamw(1e-3)
        grads, step = jax.tree.map(lambda x: 0.1 * x, params), step_of(gradtx, tx)
        carry = [jax.tree.map(jnp.copy, params), tx.init(params)]

        def many(params: Any, state: Any, step: Any = step, grads: Any = grads) -> Any:
            def body(carry: Any, _: None) -> Any:
                return step(*carry, grads), None

            return jax.lax.scan(body, (params, state), length=steps)[0]

        compiled = jax.jit(many, donate_argnums=(0, 1))

        def scanned(carry: list[Any] = carry, compiled: Any = compiled) -> float:
            def once() -> Any:
                carry[:] = compiled(*carry)
                return carry[0]

            return timed(once) / steps

        runs = {"single calls": stepping(gradtx, tx, params, steps), "scan": scanned}
        found = side_by_side(runs, 7 if quick else 21)
        report(f"a step within scan, AdamW, {leaves} leaves", found, "single calls", "about 0.25")


# ---- Memory -------------------------------------------------------------------------------------


def resident() -> float:
    """Gives the MiB of this process that are in memory."""
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def in_a_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """Runs a function where nothing was compiled or kept before."""
    new = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=new) as pool:
        return pool.submit(function, *args).result()


def grown(name: str, counts: list[int]) -> list[float]:
    """Gives the MiB added after so many optimizers that differ, and at last without JAX's caches."""
    library, params = LIBRARIES[name], {"w": jnp.ones((4, 4)), "b": jnp.ones(4)}
    unjitted(library, whole(library), params)
    start, made, found = resident(), 0, []
    for count in counts:
        for _ in range(count - made):
            unjitted(library, adamw(library), params)
        made = count
        found.append(resident() - start)
    jax.clear_caches()
    return [*found, resident() - start]


@row
def memory_over_many(quick: bool) -> None:
    """What stays in memory of optimizers that were made, stepped twice un-jitted, and dropped."""
    counts = [20, 50, 100] if quick else [100, 1000, 2000]
    for name in LIBRARIES:
        found = in_a_new_process(grown, name, counts)
        told = [f"{x:.0f} MiB after {n:,}" for n, x in zip(counts, found, strict=False)]
        told.append(f"{found[-1]:.0f} MiB without JAX's caches")
        print(f"\nmemory over optimizers that differ in b1, {name}\n  {', '.join(told)}")
    print("  target: levels off below 100 MB; JAX's caches free it")


def kept(name: str, what: str, leaves: int, count: int) -> tuple[float, float]:
    """Gives the seconds and the MiB that each of several optimizers takes, made alike or not."""
    library, params = LIBRARIES[name], model(leaves)
    make = {
        "clip + AdamW + schedule, each with others": lambda: whole(library),
        "adam(0.1), alike": lambda: library.adam(0.1),
        "MultiSteps(adam(0.1), 2), alike": lambda: library.MultiSteps(library.adam(0.1), 2),
    }[what]
    unjitted(library, make(), params)
    unjitted(library, make(), params)
    memory = resident()
    seconds = timed(lambda: unjitted(library, make(), params), count)
    return seconds, (resident() - memory) / count


def _print_kept(what: str, leaves: int, count: int, target: str) -> None:
    print(f"\n{what}: made again, two un-jitted steps, {leaves} leaves")
    base = None
    for name in LIBRARIES:
        seconds, memory = in_a_new_process(kept, name, what, leaves, count)
        base = base or seconds
        print(f"  {name:<10} {seconds:8.4f} s ({seconds / base:.2f})  {memory:7.3f} MiB each")
    print(f"  target: {target}")


@row
def multi_steps(quick: bool) -> None:
    """`MultiSteps` made again and stepped un-jitted, beside its optimizer alone."""
    for leaves in (12,) if quick else (12, 144):
        count = 3 if quick else 10
        _print_kept("adam(0.1), alike", leaves, count, "nothing kept")
        _print_kept(
            "MultiSteps(adam(0.1), 2), alike", leaves, count, "as Adam alone (was 0.75 s, 1 MiB)"
        )


@row
def memory_of_one(quick: bool) -> None:
    """What stays of one optimizer that was made and used."""
    what = "clip + AdamW + schedule, each with others"
    for leaves in (12,) if quick else (12, 144):
        _print_kept(what, leaves, 5 if quick else 20, "nothing kept (was 2.2 MiB and a second)")


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
        raise SystemExit(f"no row is named {unknown[0]!r}; there are {', '.join(ROWS)}, catalog")
    for name in given.names or ROWS:
        ROWS[name](given.quick)


if __name__ == "__main__":
    main()
