"""First use: the costs before the first jitted step runs, gradtx against optax in one run.

    python benchmarks/first_use.py [ROW ...]             # the rows below, all of them by default
    python benchmarks/first_use.py --quick               # fewer rounds
    python benchmarks/first_use.py catalog [--leaves 12 150 1000] [--repeats 1] [NAME ...]

`catalog` compiles every optimizer and every wrapper. To add a row, decorate a function with `@row`.
"""

import argparse
import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from compiling import model, walk
from harness import machine, report, side_by_side, timed

import gradtx
from gradtx.engine.blocks import repeated_block

LIBRARIES = {"optax": optax, "gradtx": gradtx}
ROWS: dict[str, Callable[[int], None]] = {}


def row(function: Callable[[int], None]) -> Callable[[int], None]:
    """Registers a function, which receives the number of rounds, as one of the rows."""
    ROWS[function.__name__] = function
    return function


def clipped(of: Any, b1: float = 0.9, bound: float = 1.0, peak: float = 1e-3) -> Any:
    """Returns what most training programs use: clipping, AdamW and a schedule."""
    schedule = of.warmup_cosine_decay_schedule(0.0, peak, 100, 1000)
    return of.chain(of.clip_by_global_norm(bound), of.adamw(schedule, b1=b1))


def compared(title: str, run: Callable[[str], float], rounds: int, target: str = "") -> None:
    """Measures both libraries alternately, and prints their ratio."""
    found = side_by_side({name: lambda n=name: run(n) for name in LIBRARIES}, rounds)
    report(title, found, "optax", target)


def forgotten(function: Callable[[], object]) -> float:
    """Returns the seconds of a call with empty JAX caches, as in a new process."""
    jax.clear_caches()
    gc.collect()
    return timed(function)


def step_of(tx: Any, apply: Callable) -> Callable:
    """Returns a training step: update and apply."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return apply(params, updates), state

    return step


def lowered(name: str, tx: Any, params: Any) -> Any:
    """Traces and lowers a step with donated buffers."""
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(step_of(tx, LIBRARIES[name].apply_updates), donate_argnums=(0, 1))
    return step.trace(params, state, params).lower()


def of_children() -> float:
    """Returns the processor time of all child processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident() -> float:
    """Returns the resident memory of the process, in MiB."""
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize() / 2**20


@row
def importing(rounds: int) -> None:
    """Importing the library in a new process, compiled to bytecode as pip does."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {n: x for n, x in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
        variables["PYTHONPYCACHEPREFIX"] = folder

        def run(name: str) -> float:
            start = of_children()
            subprocess.run([sys.executable, "-c", f"import {name}"], env=variables, check=True)
            return of_children() - start

        names = ("optax", "gradtx", "jax")
        found = side_by_side({n: lambda n=n: run(n) for n in names}, 2 * rounds)
        report("import, processor time", found, "optax", "at most 1")


@row
def compile_clipped(rounds: int) -> None:
    """Compiling a step of clip + AdamW + schedule."""
    for leaves in (144, 200):
        params = model(leaves)

        def run(name: str, params: Any = params) -> float:
            jax.clear_caches()
            low = lowered(name, clipped(LIBRARIES[name]), params)
            start = time.process_time()
            low.compile()
            return time.process_time() - start

        title = f"compile clip + AdamW + schedule, {leaves} leaves, processor time"
        compared(title, run, min(rounds, 5), "at most 1")


def _six(name: str, params: Any, shift: float = 0.0) -> None:
    for k in range(6):
        tx = clipped(LIBRARIES[name], 0.9 + 0.01 * k + shift, 1.0 + 0.1 * k + shift)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(params, state, params)
        jax.block_until_ready(updates)


@row
def six_optimizers(rounds: int) -> None:
    """Six optimizers that differ in b1 and the clipping bound, two un-jitted steps each."""
    for leaves in (12, 144):
        params = model(leaves)
        compared(
            f"six optimizers, {leaves} leaves, caches empty",
            lambda name, p=params: forgotten(lambda: _six(name, p)),
            min(rounds, 5),
            "at most 3",
        )
        shifts = iter(np.linspace(1e-5, 1e-3, 1000).tolist())
        compared(
            f"six more, {leaves} leaves",
            lambda name, p=params, s=shifts: timed(lambda: _six(name, p, next(s))),
            min(rounds, 5),
        )


@row
def memory_of_many(rounds: int) -> None:
    """Memory after creating up to 2,000 optimizers, two un-jitted steps each."""
    del rounds
    params = model(12)
    print("\nmemory after so many optimizers that differ in b1 and the clip's bound, in MiB")
    _six("gradtx", params)
    start, told = resident(), []
    for number in range(1, 2001):
        tx = clipped(gradtx, 0.8 + 1e-5 * number, 1.0 + 1e-4 * number)
        state = tx.init(params)
        for _ in range(2):
            _, state = tx.update(params, state, params)
        if number in (100, 500, 1000, 2000):
            told.append(f"{number}: +{resident() - start:.1f}")
    del tx, state
    jax.clear_caches()
    print(
        f"  gradtx, from {start:.0f}:  {', '.join(told)}, caches cleared: {resident() - start:+.1f}"
    )
    print("  target: levels off below 100")


@row
def multi_steps_again(rounds: int) -> None:
    """Creating `MultiSteps(adam, 2)` and `adam` repeatedly, two un-jitted steps each."""
    params = model(144)
    rates = iter(np.linspace(0.1, 0.2, 10000).tolist())

    def make(of: Any, wrapped: bool) -> Any:
        tx = of.adam(next(rates))
        return of.MultiSteps(tx, 2) if wrapped else tx

    def run(name: str, wrapped: bool) -> float:
        def once() -> Any:
            tx = make(LIBRARIES[name], wrapped)
            state = tx.init(params)
            for _ in range(2):
                updates, state = tx.update(params, state, params)
            return updates

        return timed(once)

    for wrapped in (True, False):
        what = "MultiSteps(adam, 2)" if wrapped else "adam"
        compared(f"{what} made again, 144 leaves", lambda n, w=wrapped: run(n, w), rounds)
    start = resident()
    for _ in range(50):
        run("gradtx", True)
    print(f"  gradtx: {(resident() - start) / 50:.3f} MiB for each MultiSteps that was made")


@row
def init(rounds: int) -> None:
    """The `init` of AdamW: under `eval_shape`, and un-jitted."""
    for leaves in (12, 144, 1000):
        params = model(leaves)
        made = {name: of.adamw(1e-3) for name, of in LIBRARIES.items()}

        def shapes(name: str, params: Any = params, made: Any = made) -> None:
            jax.eval_shape(lambda p: made[name].init(p), params)  # a function that is new to JAX

        compared(
            f"eval_shape(init), {leaves} leaves, caches empty",
            lambda name, f=shapes: forgotten(lambda: f(name)),
            rounds,
            "at most 0.4",
        )
        compared(
            f"eval_shape(init), {leaves} leaves, caches full",
            lambda name, f=shapes: timed(lambda: f(name)),
            rounds,
            "at most 0.4",
        )
        compared(
            f"un-jitted init, {leaves} leaves",
            lambda name, p=params, made=made: timed(lambda: made[name].init(p)),
            rounds,
            "at most 0.15",
        )


@row
def jitted_init(rounds: int) -> None:
    """Tracing and compiling a jitted `init` of AdamW."""
    for leaves in (12, 144):
        params = model(leaves)

        def run(name: str, params: Any = params) -> float:
            tx = LIBRARIES[name].adamw(1e-3)
            return forgotten(lambda: jax.jit(tx.init).lower(params).compile() and 0)

        compared(
            f"trace + compile of a jitted init, {leaves} leaves",
            run,
            rounds,
            "at most 1" if leaves == 144 else "",
        )


@row
def trace_init_and_step(rounds: int) -> None:
    """Tracing and lowering `init` and a step together, and a step alone."""
    params = model(144)

    def both(name: str) -> float:
        of, tx = LIBRARIES[name], LIBRARIES[name].adamw(1e-3)

        def program(params: Any, grads: Any) -> Any:
            return step_of(tx, of.apply_updates)(params, tx.init(params), grads)

        return forgotten(lambda: jax.jit(program).trace(params, params).lower() and 0)

    compared("trace + lower, init and step, 144 leaves", both, rounds, "at most 0.3")

    def alone(name: str, leaves: Any) -> float:
        tx = LIBRARIES[name].adamw(1e-3)
        state = jax.eval_shape(tx.init, leaves)
        step = jax.jit(step_of(tx, LIBRARIES[name].apply_updates))
        return forgotten(lambda: step.trace(leaves, state, leaves).lower() and 0)

    for leaves in (12, 144, 1000):
        p = model(leaves)
        title = f"trace + lower, step, {leaves} leaves"
        compared(
            title, lambda n, p=p: alone(n, p), rounds, "at most 0.333" if leaves == 144 else ""
        )


@row
def ten_thousand_leaves(rounds: int) -> None:
    """Pytrees of 10,000 leaves: finding repeated blocks, and tracing AdamW."""
    shapes = [x.shape for x in model(10000, 4)]
    for what, sequence in (("layers", shapes), ("equal", shapes[:1] * 10000)):
        seconds = min(timed(lambda s=sequence: repeated_block(s) and 0) for _ in range(3))
        print(f"\nrepeated_block of 10,000, {what}: {seconds:.4f} s   target: at most 0.1 s")
    params = [jnp.ones(2)] * 10000

    def run(name: str) -> float:
        return forgotten(lambda: lowered(name, LIBRARIES[name].adamw(1e-3), params) and 0)

    compared("trace + lower, 10,000 equal leaves", run, min(rounds, 3), "at most 0.3")


@row
def un_jitted(rounds: int) -> None:
    """An un-jitted step of clip + AdamW + schedule: update and apply."""
    for leaves in (12, 144, 1000):
        params, runs = model(leaves), {}
        for name, of in LIBRARIES.items():
            tx = clipped(of)
            state, step = tx.init(params), step_of(tx, of.apply_updates)
            runs[name] = lambda p=params, s=state, f=step: timed(lambda: f(p, s, p), 10)
        found = side_by_side(runs, rounds, warm=2)
        title = f"un-jitted clip + AdamW + schedule, {leaves} leaves"
        report(title, found, "optax", "at most 0.08" if leaves == 144 else "")


@row
def first_step(rounds: int) -> None:
    """The first step of AdamW from empty caches, with `init`: un-jitted, and jitted."""
    for leaves in (12, 144):
        params = model(leaves)
        for jitted in (False, True):

            def run(name: str, params: Any = params, jitted: bool = jitted) -> float:
                of = LIBRARIES[name]

                def once() -> Any:
                    tx = of.adamw(1e-3)
                    how = jax.jit if jitted else lambda f: f
                    return how(step_of(tx, of.apply_updates))(params, how(tx.init)(params), params)

                return forgotten(once)

            what = "jitted" if jitted else "un-jitted"
            compared(f"first {what} step with init, {leaves} leaves", run, min(rounds, 5))


@row
def jitted(rounds: int) -> None:
    """A jitted step of AdamW with donated buffers.

    The limit is a program that reads and writes the same arrays, and computes only sums.
    """
    for leaves, target in ((12, ""), (144, "at most 0.9"), (1000, "at most 0.85")):
        params, runs = model(leaves, 64 if leaves < 1000 else 16), {}
        for name in (*LIBRARIES, "limit"):
            carry = [jax.tree.map(jnp.copy, params)]
            if name == "limit":
                carry.append((*(jax.tree.map(jnp.copy, params) for _ in "mn"), jnp.zeros(())))
                compiled = jax.jit(sums, donate_argnums=(0, 1)).lower(*carry, params).compile()
            else:
                carry.append(LIBRARIES[name].adamw(1e-3).init(params))
                compiled = lowered(name, LIBRARIES[name].adamw(1e-3), params).compile()

            def once(compiled: Any = compiled, carry: Any = carry, grads: Any = params) -> Any:
                carry[:] = compiled(*carry, grads)
                return carry[0]

            runs[name] = lambda once=once: timed(once, 20)
        report(f"jitted step, {leaves} leaves", side_by_side(runs, 2 * rounds), "optax", target)


def sums(params: Any, state: Any, grads: Any) -> Any:
    """Returns the arrays of a step of AdamW, each plus the gradient."""
    mu, nu, count = state
    new, mu, nu = (jax.tree.map(jnp.add, x, grads) for x in (params, mu, nu))
    return new, (mu, nu, count + 1)


STEPS = 20


@row
def scan(rounds: int) -> None:
    """Steps in `lax.scan` against single calls of a jitted step, gradtx alone."""
    for leaves in (12, 144, 1000):
        params, tx = model(leaves), gradtx.adamw(1e-3)
        step = step_of(tx, gradtx.apply_updates)
        runs = {name: _many(how, step, params, tx) for name, how in WAYS.items()}
        report(f"{STEPS} steps, {leaves} leaves", side_by_side(runs, rounds), "single calls")


def _in_single_calls(step: Callable) -> Callable:
    compiled = jax.jit(step, donate_argnums=(0, 1))

    def run(params: Any, state: Any, grads: Any) -> Any:
        for _ in range(STEPS):
            params, state = compiled(params, state, grads)
        return params, state

    return run


def _in_a_scan(step: Callable) -> Callable:
    def run(params: Any, state: Any, grads: Any) -> Any:
        def body(carry: Any, _: None) -> Any:
            return step(*carry, grads), None

        return jax.lax.scan(body, (params, state), length=STEPS)[0]

    return jax.jit(run, donate_argnums=(0, 1))


WAYS = {"single calls": _in_single_calls, "lax.scan": _in_a_scan}


def _many(how: Callable, step: Callable, params: Any, tx: Any) -> Callable[[], float]:
    run, grads = how(step), jax.tree.map(lambda x: 0.1 * x, params)
    carry = [jax.tree.map(jnp.copy, params), tx.init(params)]

    def once() -> Any:
        carry[:] = run(*carry, grads)
        return carry[0]

    return lambda: timed(once)


def main() -> None:
    """Prints the rows named on the command line, or all rows; or the catalog."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"catalog, or among {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--leaves", type=int, nargs="+", default=[12, 150, 1000])
    parser.add_argument("--repeats", type=int, default=1, help="of the catalog's compilations")
    asked = parser.parse_args()
    print(machine("jax", "optax", "gradtx", "numpy"))
    if asked.names[:1] == ["catalog"]:
        walk(asked.leaves, asked.names[1:], asked.repeats)
        return
    if unknown := [name for name in asked.names if name not in ROWS]:
        sys.exit(f"no row is named {unknown[0]!r}; there are catalog, {', '.join(ROWS)}")
    for name in asked.names or ROWS:
        ROWS[name](3 if asked.quick else 11)


if __name__ == "__main__":
    main()
