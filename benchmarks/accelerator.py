"""Optimizers on one accelerator: shares of its copy bandwidth, ratios to optax and PyTorch.

    python benchmarks/accelerator.py [SECTION ...] [--out FILE.json]

It needs JAX and this folder alone; optax and PyTorch are measured where they are installed, and
PyTorch in a process of its own. It has run on CPUs only so far, where everything is small. The
sections are:

- copy: an array is read and written; its bytes in a second are the bandwidth of all shares below;
- torch: PyTorch's AdamW, fused and foreach, and its Muon, on the shapes of the other sections;
- adamw: AdamW on 100 million and 1 billion parameters; a share is the bytes of gradients (read),
  parameters and state (read and written) in a second, divided by the bandwidth;
- chain: clipping by global norm, AdamW and a schedule on 100 million parameters;
- muon: Muon on the shapes of GPT-2 small and medium, with AdamW for embeddings and vectors;
- bases: SOAP and Shampoo on the same shapes, recomputed every 10 steps (the mean of 10);
- leaves: AdamW on 148 and 1,012 small leaves.

Steps are jitted, and their buffers donated. The columns are the median of a step in the rounds with
its quartiles, its ratio to optax's median, the share, the seconds of tracing and compilation, the
bytes of state for each parameter, and temporary memory for each parameter.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, side_by_side

import gradtx

try:
    import optax
    import optax.contrib
except ImportError:
    optax = None

SECTIONS: dict[str, Callable[[], None]] = {}
ROWS: list[dict[str, Any]] = []
ON_CPU = jax.default_backend() == "cpu"  # only to try the script: everything is small there
bandwidth = float("nan")  # bytes in a second, found by the section `copy`


def section(function: Callable[[], None]) -> Callable[[], None]:
    """Registers a function as a section."""
    SECTIONS[function.__name__] = function
    return function


COLUMNS = {
    "ms": "{:9.3f} ms", "low": "({:.3f}", "high": "to {:.3f})", "ratio": "{:6.3f} of optax",
    "share": "{:6.3f} of copy", "trace": "trace {:.2f} s", "compile": "compile {:.2f} s",
    "state": "state {:.2f} B", "temporary": "temporary {:.2f} B", "gb_s": "{:.0f} GB/s",
}  # fmt: skip


def note(section: str, what: str, name: str, **row: float | None) -> None:
    """Keeps a row for the JSON file and prints it."""
    ROWS.append({"section": section, "what": what, "name": name, **row})
    cells = [form.format(row[key]) for key, form in COLUMNS.items() if row.get(key) is not None]
    print(f"{section:<7} {what:<32} {name:<26}", *cells, flush=True)


# ---- The shapes of models: pytrees of `jax.ShapeDtypeStruct` ------------------------------------


def struct(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def squares(millions: int) -> list:
    """Returns square matrices of about as many million parameters."""
    side = 4096 if millions >= 50 else 1024
    return [struct(side, side)] * round(millions * 1e6 / side**2)


def gpt2(layers: int, width: int) -> dict:
    """Returns the parameters of GPT-2: 12 layers of width 768 are small, 24 of 1024 are medium."""

    def linear(rows: int, columns: int) -> dict:
        return {"kernel": struct(rows, columns), "bias": struct(columns)}

    def norm() -> dict:
        return {"scale": struct(width), "bias": struct(width)}

    layer = {
        "attention": {"qkv": linear(width, 3 * width), "out": linear(width, width)},
        "mlp": {"up": linear(width, 4 * width), "down": linear(4 * width, width)},
        "norm1": norm(),
        "norm2": norm(),
    }
    words = 50257 if width >= 512 else 256
    embeddings = {"wte": struct(words, width), "wpe": struct(1024, width)}
    return {**embeddings, "layers": [layer] * layers, "norm": norm()}


# ---- Steps of gradtx and optax ------------------------------------------------------------------


class Training:
    """A compiled training step with its parameters and state."""

    def __init__(self, tx: Any, apply: Callable, shapes: Any, dtype: Any, grads: Any):
        params = jax.tree.map(lambda x: jnp.full(x.shape, 0.5, dtype), shapes)
        state = jax.jit(tx.init)(params)

        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return apply(params, updates), state

        start = time.perf_counter()
        lowered = jax.jit(step, donate_argnums=(0, 1)).trace(params, state, grads).lower()
        self.trace = time.perf_counter() - start
        self.compiled = lowered.compile()
        self.compile = time.perf_counter() - start - self.trace
        self.carry, self.grads = [params, state], grads
        size = sum(x.size for x in jax.tree.leaves(params))
        self.own, held, given = map(bytes_of, (params, state, grads))
        self.state = held / size
        self.moved = given + 2 * (self.own + held)
        analysis = self.compiled.memory_analysis()
        self.temporary = getattr(analysis, "temp_size_in_bytes", float("nan")) / size

    def run(self, steps: int) -> float:
        """Returns the mean seconds of steps in sequence."""
        jax.block_until_ready(self.carry)
        start = time.perf_counter()
        for _ in range(steps):
            self.carry = self.compiled(*self.carry, self.grads)
        jax.block_until_ready(self.carry)
        return (time.perf_counter() - start) / steps


def bytes_of(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def compare(
    section: str,
    what: str,
    field: Mapping[str, tuple[Any, Any]],
    shapes: Any,
    steps: int = 10,
    rounds: int = 11,
) -> None:
    """Measures optimizers, `(transformation, dtype)` by name, side by side on the same shapes."""
    pool = np.random.default_rng(0).standard_normal(2**20)  # random numbers, repeated
    grads = {
        dtype: jax.tree.map(lambda x, d=dtype: jnp.resize(jnp.asarray(pool, d), x.shape), shapes)
        for dtype in {dtype for _, dtype in field.values()}
    }
    made = {}
    for name, (tx, dtype) in field.items():
        apply = optax.apply_updates if "optax" in name else gradtx.apply_updates
        made[name] = Training(tx, apply, shapes, dtype, grads[dtype])
    found = side_by_side({n: lambda t=t: t.run(steps) for n, t in made.items()}, rounds)
    for name, seconds in found.items():
        low, median, high = np.percentile(seconds, [25, 50, 75])
        t = made[name]
        ratio = "optax" in found and name != "optax"
        note(
            section, what, name, ms=1e3 * median, low=1e3 * low, high=1e3 * high,
            ratio=float(np.median(seconds / found["optax"])) if ratio else None,
            share=t.moved / median / bandwidth,
            trace=t.trace, compile=t.compile, state=t.state, temporary=t.temporary,
        )  # fmt: skip


def beside_optax(make: Callable[[Any], Any]) -> dict[str, tuple[Any, Any]]:
    """Returns what a function makes of gradtx, and of optax where that is installed."""
    modules = {"optax": optax, "gradtx": gradtx} if optax else {"gradtx": gradtx}
    return {name: (make(module), jnp.float32) for name, module in modules.items()}


@section
def copy() -> None:
    """Reads and writes 4 GB in place."""
    global bandwidth
    size = 2**24 if ON_CPU else 2**30
    x = [jnp.ones((size,), jnp.float32)]
    step = jax.jit(lambda x: x + 1, donate_argnums=0)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(5):
            x[0] = step(x[0])
        jax.block_until_ready(x)
        return (time.perf_counter() - start) / 5

    seconds = float(np.median(side_by_side({"copy": run}, 9)["copy"]))
    bandwidth = 8 * size / seconds
    note("copy", f"{4 * size / 1e9:.1f} GB", "x + 1", ms=1e3 * seconds, gb_s=bandwidth / 1e9)


@section
def torch() -> None:
    """PyTorch in a process of its own; first, as JAX keeps the memory of the other sections."""
    command = [sys.executable, __file__, "--only-torch"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    for row in rows:
        note(**row)
    if not rows:
        last = (result.stderr.strip().splitlines() or [""])[-1]
        print(f"torch   not measured: {last}")


@section
def adamw() -> None:
    def in_8_bits(tx: Any) -> Any:
        return gradtx.store(tx, {"*/mu": "int8", "*/nu": "uint8"})

    for millions in (8,) if ON_CPU else (100, 1000):
        field = beside_optax(lambda of: of.adamw(1e-3))
        if optax:
            field["optax, bfloat16"] = (optax.adamw(1e-3), jnp.bfloat16)
        field["gradtx, bfloat16"] = (gradtx.adamw(1e-3), jnp.bfloat16)
        field["gradtx, 8 bits"] = (in_8_bits(gradtx.adamw(1e-3)), jnp.float32)
        field["gradtx, 8 bits, bfloat16"] = (in_8_bits(gradtx.adamw(1e-3)), jnp.bfloat16)
        compare("adamw", f"{millions} M parameters", field, squares(millions))


@section
def chain() -> None:
    def clipped(of: Any) -> Any:
        rate = of.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)
        return of.chain(of.clip_by_global_norm(1.0), of.adamw(rate))

    millions = 8 if ON_CPU else 100
    compare(
        "chain", f"clip, AdamW, schedule, {millions} M", beside_optax(clipped), squares(millions)
    )
    compare("chain", "clip, AdamW, schedule, 148 leaves", beside_optax(clipped), gpt2(12, 64))


def sizes() -> dict[str, tuple[int, int]]:
    if ON_CPU:
        return {"width 64": (2, 64)}
    return {"GPT-2 small": (12, 768), "GPT-2 medium": (24, 1024)}


@section
def muon() -> None:
    for what, (layers, width) in sizes().items():
        shapes = gpt2(layers, width)
        axes = gradtx.hidden_matrices()(shapes)
        field = {
            "gradtx": (gradtx.muon(1e-3, muon_weight_dimension_numbers=axes), jnp.float32),
            "gradtx, Gram, 4 steps": (
                gradtx.muon(
                    1e-3, gradtx.polar_express(4, 3e-3), preconditioning="schatten",
                    ns_form="gram", muon_weight_dimension_numbers=axes,
                ),
                jnp.float32,
            ),
        }  # fmt: skip
        if optax:
            dims = jax.tree.map(
                lambda x: x and optax.contrib.MuonDimensionNumbers(0, 1),
                axes,
                is_leaf=lambda x: x is None or isinstance(x, gradtx.MatrixAxes),
            )
            theirs = optax.contrib.muon(1e-3, muon_weight_dimension_numbers=dims)
            field = {"optax": (theirs, jnp.float32), **field}
        compare("muon", what, field, shapes, steps=5, rounds=5)


@section
def bases() -> None:
    for what, (layers, width) in sizes().items():
        shapes = gpt2(layers, width)
        axes = gradtx.hidden_matrices()(shapes)
        for name in ("soap", "shampoo"):
            tx = getattr(gradtx, name)(1e-3, weight_dimension_numbers=axes)
            compare("bases", f"{name}, {what}", {"gradtx": (tx, jnp.float32)}, shapes, 10, 3)


@section
def leaves() -> None:
    for layers in (12, 84):
        shapes = gpt2(layers, 64)
        what = f"AdamW, {len(jax.tree.leaves(shapes))} leaves, width 64"
        compare("leaves", what, beside_optax(lambda of: of.adamw(1e-3)), shapes)


# ---- PyTorch ------------------------------------------------------------------------------------


def torch_rows() -> None:
    """Prints the rows of PyTorch, as JSON."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def measure(what: str, name: str, make: Callable, shapes: list, dtype: Any) -> None:
        params = [torch.nn.Parameter(torch.ones(s, device=device, dtype=dtype)) for s in shapes]
        for p in params:
            p.grad = torch.randn(p.shape, device=device, dtype=dtype)
        optimizer = make(params)

        def run() -> float:
            wait()
            start = time.perf_counter()
            for _ in range(5):
                optimizer.step()
            wait()
            return (time.perf_counter() - start) / 5

        low, median, high = np.percentile(side_by_side({name: run}, 7)[name], [25, 50, 75]) * 1e3
        row = {"section": "torch", "what": what, "name": name}
        print(json.dumps({**row, "ms": median, "low": low, "high": high}))

    def adamw(kind: str) -> Callable:
        return lambda params: torch.optim.AdamW(params, lr=1e-3, **{kind: True})

    def shapes_of(tree: Any) -> list:
        return [x.shape for x in jax.tree.leaves(tree)]

    for millions in (8,) if device == "cpu" else (100, 1000):
        for dtype in (torch.float32, torch.bfloat16):
            for kind in ("fused", "foreach"):
                name = f"AdamW {kind}, {str(dtype)[6:]}"
                shapes = shapes_of(squares(millions))
                measure(f"{millions} M parameters", name, adamw(kind), shapes, dtype)
    for layers in (12, 84):
        shapes = shapes_of(gpt2(layers, 64))
        name = f"AdamW, {len(shapes)} leaves, width 64"
        measure(name, "AdamW fused", adamw("fused"), shapes, torch.float32)
    if hasattr(torch.optim, "Muon"):
        for what, (layers, width) in sizes().items():
            hidden = [x.shape for x in jax.tree.leaves(gpt2(layers, width)["layers"]) if x.ndim > 1]
            make = lambda params: torch.optim.Muon(params, lr=1e-3)  # noqa: E731
            measure(f"{what}, matrices alone", "Muon", make, hidden, torch.float32)


def main() -> None:
    """Runs the sections named on the command line, or all sections."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("sections", nargs="*", help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    parser.add_argument("--only-torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_torch:
        torch_rows()
        return
    if unknown := {*options.sections} - {*SECTIONS}:
        sys.exit(f"no section is named {unknown.pop()!r}; there are {', '.join(SECTIONS)}")
    title = machine("jax", "gradtx", "numpy", "optax", "torch")
    print(title, flush=True)
    start = time.perf_counter()
    for name in dict.fromkeys(["copy", *(options.sections or SECTIONS)]):
        try:
            SECTIONS[name]()
        except Exception as error:  # the other sections can still be measured
            print(f"{name:<7} failed: {type(error).__name__}: {str(error)[:400]}", flush=True)
        if options.out:
            text = json.dumps({"machine": title, "rows": ROWS}, indent=1)
            options.out.write_text(text + "\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
