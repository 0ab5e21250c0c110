"""Optimizers over 8 devices: state, exchanged bytes and arithmetic of each device, in one table.

    python benchmarks/sharding.py [--only muon]
    python benchmarks/sharding.py --times

The parameters are the 48 matrices of a transformer with 12 layers of width 64, in float32, on 8
virtual devices of the CPU. Everything but the last column is read from the arrays' shardings and
from the compiled program of `tx.update`, so that it does not depend on the machine. The columns:

- axes: `explicit` are those of a mesh with explicit axes; `shard` is `gradtx.shard` around the
  optimizer over automatic axes; `automatic` is the optimizer as it is over automatic axes.
- state: kilobytes on one device after `jax.jit(tx.init)` without `out_shardings`; then the shares
  of the whole state on one device after `tx.init`, after `jax.jit(tx.init)`, and after a step from
  the first. `host` is memory of the host.
- collectives: their number by kind in one step, and the kilobytes of all. The bytes of a collective
  are those of its operands or of its results on one device, whichever are more: the results of an
  all-gather, the operands of a reduce-scatter, and either one of an all-to-all, an all-reduce or a
  permutation. What a device sends to itself is included, and an all-reduce is counted once, though
  most networks move its bytes twice. Collectives in a branch of a conditional are counted apart.
- MFlop of one device, as XLA's cost analysis counts, and their ratio to an eighth of those of the
  same optimizer on one device.
- difference: the largest one in 3 steps of float64 to the updates on one device, relative to the
  largest element of the parameter's update.

Steps start from the state of `tx.init` without `jit`, which is sharded best with optax. Gradients
are sharded as the parameters are; `partial` ones are different on each device along `data` and have
to be reduced. Without `--only`, a second table has
the figures that are aimed at, for the worse one of explicit axes and `shard`.

With `--times`, the processor seconds for tracing and lowering a step, and for compiling it, with
empty caches, at 12 and at 48 layers, with FSDP (8); for `zero` with replicated parameters. The
ratios are to optax's optimizer of the same name, over automatic axes.
"""

import argparse
import contextlib
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from harness import machine
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import gradtx
from gradtx._table import markdown_table

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)

DEVICES, LAYERS, WIDTH, STEPS = 8, 12, 64, 3
SHAPES = {
    "qkv": (WIDTH, 3 * WIDTH),
    "o": (WIDTH, WIDTH),
    "up": (WIDTH, 4 * WIDTH),
    "down": (4 * WIDTH, WIDTH),
}
SETTINGS = {
    "FSDP (8)": ({"fsdp": 8}, P("fsdp", None)),
    "data 2 x tensor 4": ({"data": 2, "tensor": 4}, P(None, "tensor")),
    "replicated (8)": ({"data": 8}, P()),
}


# ---- Optimizers ---------------------------------------------------------------------------------


def clipped(library: Any) -> Any:
    return library.chain(library.clip_by_global_norm(1.0), library.adamw(1e-3))


class Candidate(NamedTuple):
    """An optimizer of the table.

    Attributes:
      make: the optimizer without wrappers, which also runs on one device.
      wrapper: `zero` or `offload`, or none.
      ours: whether the library is gradtx.
      partial: whether the gradients are partial.
    """

    make: Callable[[], Any]
    wrapper: str = ""
    ours: bool = True
    partial: bool = False

    def over(self, axes: str, params: Any) -> Any:
        """Returns the optimizer for a kind of axes."""
        tx, to = self.make(), params if axes == "shard" else None
        if self.wrapper == "zero":
            return gradtx.zero(tx, "data", to)
        tx = tx if to is None else gradtx.shard(tx, to)
        return gradtx.offload(tx) if self.wrapper == "offload" else tx

    def fits(self, axes: str, mesh: Mesh) -> bool:
        """Returns whether the optimizer can be asked for with these axes."""
        if self.wrapper == "zero" and ("data" not in mesh.shape or axes == "automatic"):
            return False
        if axes == "shard":
            return self.ours and not self.partial
        return axes == "explicit" or not self.partial


CANDIDATES = {
    "adamw": Candidate(lambda: gradtx.adamw(1e-3)),
    "clip + adamw": Candidate(lambda: clipped(gradtx)),
    "muon": Candidate(lambda: gradtx.muon(1e-2)),
    "zero(adamw)": Candidate(lambda: gradtx.adamw(1e-3), "zero"),
    "zero(adamw), partial": Candidate(lambda: gradtx.adamw(1e-3), "zero", partial=True),
    "zero(muon)": Candidate(lambda: gradtx.muon(1e-2), "zero"),
    "offload(adamw)": Candidate(lambda: gradtx.adamw(1e-3), "offload"),
    "optax adamw": Candidate(lambda: optax.adamw(1e-3), ours=False),
    "optax clip + adamw": Candidate(lambda: clipped(optax), ours=False),
    "optax muon": Candidate(lambda: optax.contrib.muon(1e-2), ours=False),
}


# ---- Collectives of a compiled program ----------------------------------------------------------

KINDS = ("all-to-all", "all-gather", "reduce-scatter", "all-reduce", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8}
COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (.+?) ([\w-]+)\((.*?)\)(.*)")


class Collectives(NamedTuple):
    """The collectives of a program.

    Attributes:
      number: how many there are, by kind, outside of branches.
      bytes: their bytes on one device, by kind.
      branches: the bytes of each one inside a branch of a conditional.
    """

    number: Counter
    bytes: Counter
    branches: list[int]

    def __str__(self) -> str:
        found = [f"{self.number[kind]} {kind}" for kind in KINDS if self.number[kind]]
        if self.branches:
            found.append(f"{len(self.branches)} in a branch")
        return ", ".join(found)


def collectives(text: str) -> Collectives:
    """Returns the collectives in the text of a compiled program."""
    calls: dict[str, set[str]] = {}
    branches: set[str] = set()
    sizes: dict[str, int] = {}
    found: list[tuple[str, str, int]] = []
    here = ""
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            here = head[1]
            calls[here] = set()
        if not (match := INSTRUCTION.match(line)):
            continue
        name, kind, operation, operands, rest = match.groups()
        if operation == "while" or operation.endswith("-start"):
            raise ValueError(f"{operation} is not counted here: {line}")
        arrays = [(BYTES[t], n.split(",")) for t, n in re.findall(r"(\w+)\[([\d,]*)\]", kind)]
        sizes[name] = sum(b * math.prod(int(n) for n in dims if n) for b, dims in arrays)
        called = set(re.findall(r"%([\w.-]+)", rest))
        calls[here] |= called
        branches |= called if operation == "conditional" else set()
        if operation in KINDS:
            given = sum(sizes[x] for x in re.findall(r"%([\w.-]+)", operands))
            found.append((here, operation, max(given, sizes[name])))
    waiting = list(branches)
    while waiting:
        new = calls.get(waiting.pop(), set()) - branches
        branches |= new
        waiting += new
    told = Collectives(Counter(), Counter(), [])
    for where, kind, size in found:
        if where in branches:
            told.branches.append(size)
        else:
            told.number[kind] += 1
            told.bytes[kind] += size
    return told


# ---- One row ------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What is measured of an optimizer in a setting.

    Attributes:
      state: the bytes of the state on one device, after `jax.jit(tx.init)`.
      shares: the shares of the state on one device, after `init`, jitted `init`, and a step.
      host: whether the state is in the memory of the host.
      collectives: those of a step.
      flops: those of one device.
      ratio: their ratio to an eighth of those on one device.
      difference: the largest difference to one device.
    """

    state: int
    shares: tuple[float, float, float]
    host: bool
    collectives: Collectives
    flops: float
    ratio: float
    difference: float

    def cells(self) -> tuple[str, ...]:
        host = " host" if self.host else ""
        return (
            f"{self.state / 1e3:.1f}{host}",
            " ".join(f"{share:.3f}" for share in self.shares),
            str(self.collectives),
            f"{self.collectives.bytes.total() / 1e3:.1f}",
            f"{self.flops / 1e6:.1f}",
            f"{self.ratio:.2f}",
            f"{self.difference:.0e}",
        )


def arrays(seed: int, dtype: Any, layers: int = LAYERS) -> dict[str, np.ndarray]:
    """Returns random arrays like the parameters, or like gradients."""
    random = np.random.default_rng(seed)
    shapes = {f"{n}/{name}": shape for n in range(layers) for name, shape in SHAPES.items()}
    return {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def placed(tree: Any, mesh: Mesh, spec: P) -> Any:
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, spec)), tree)


def parts(tree: Any, count: int) -> Any:
    """Returns for each gradient different summands of it, along a new first axis."""
    weights = np.arange(1, count + 1) / sum(range(1, count + 1))
    return jax.tree.map(lambda x: (weights.reshape(-1, *[1] * x.ndim) * x).astype(x.dtype), tree)


def step_of(tx: Any, mesh: Mesh, spec: P, partial: bool) -> Callable:
    if not partial:
        return jax.jit(tx.update)
    unreduced = jax.shard_map(
        lambda parts: jax.tree.map(lambda x: x[0], parts),
        mesh=mesh,
        in_specs=P("data", *spec),
        out_specs=spec.update(unreduced={"data"}),
        check_vma=False,
    )
    return jax.jit(lambda grads, state, params: tx.update(unreduced(grads), state, params))


def on_one_device(candidate: Candidate) -> tuple[float, list[Any]]:
    """Returns the flops of a step, and the updates of the steps in float64."""
    tx, params = candidate.make(), jax.tree.map(jnp.asarray, arrays(0, np.float32))
    lowered = jax.jit(tx.update).lower(params, tx.init(params), params)
    flops = lowered.compile().cost_analysis()["flops"]
    params = jax.tree.map(jnp.asarray, arrays(0, np.float64))
    state, update, found = tx.init(params), jax.jit(tx.update), []
    for number in range(STEPS):
        updates, state = update(arrays(number + 1, np.float64), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        found.append(jax.tree.map(np.asarray, updates))
    return flops, found


def share(state: Any) -> tuple[int, float]:
    """Returns the bytes of a state on the first device, and their share of all."""
    leaves = jax.tree.leaves(state)
    here = sum(x.addressable_shards[0].data.nbytes for x in leaves)
    return here, here / sum(x.nbytes for x in leaves)


def row_of(candidate: Candidate, axes: str, mesh: Mesh, spec: P, alone: tuple) -> Row:
    def grads(seed: int, dtype: Any) -> Any:
        found = arrays(seed, dtype)
        if candidate.partial:
            return placed(parts(found, mesh.shape["data"]), mesh, P("data", *spec))
        return placed(found, mesh, spec)

    params = placed(arrays(0, np.float32), mesh, spec)
    tx = candidate.over(axes, params)
    state, jitted = tx.init(params), jax.jit(tx.init)(params)
    given = grads(1, np.float32)
    compiled = step_of(tx, mesh, spec, candidate.partial).lower(given, state, params).compile()
    _, after = compiled(given, state, params)
    flops = compiled.cost_analysis()["flops"]

    params = placed(arrays(0, np.float64), mesh, spec)
    tx = candidate.over(axes, params)
    exact, step, differences = tx.init(params), step_of(tx, mesh, spec, candidate.partial), []
    for number, want in enumerate(alone[1]):
        updates, exact = step(grads(number + 1, np.float64), exact, params)
        params = jax.tree.map(jnp.add, params, updates)
        differences += [
            np.max(np.abs(np.asarray(updates[name]) - want[name])) / np.max(np.abs(want[name]))
            for name in want
        ]
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(jitted) if x.ndim}
    return Row(
        share(jitted)[0],
        (share(state)[1], share(jitted)[1], share(after)[1]),
        kinds == {"pinned_host"},
        collectives(compiled.as_text()),
        flops,
        flops * DEVICES / alone[0],
        max(differences),
    )


# ---- The figures of the issue -------------------------------------------------------------------

Rows = dict[tuple[str, str, str], Row]
"""The rows by setting, optimizer and axes."""


def figures(rows: Rows) -> Iterator[tuple[str, float, float]]:
    """Yields what is asked, the bound, and the worst of what was measured."""
    own = sum(x.nbytes for x in arrays(0, np.float32).values())

    def worst(names: Sequence[str], setting: str, of: Callable[[Row], float]) -> float:
        """Returns the largest value with explicit axes or with `shard`."""
        return max(
            of(row)
            for (where, name, axes), row in rows.items()
            if name in names and where.startswith(setting) and axes != "automatic"
        )

    def kilobytes(row: Row) -> float:
        return row.collectives.bytes.total() / 1e3

    def number(row: Row) -> int:
        return row.collectives.number.total() + len(row.collectives.branches)

    exchange = 2 * own / DEVICES / 1e3
    # All devices need the updates of all replicated parameters: one all-gather of everything.
    for setting, bound, flops in (
        ("FSDP", 1.1 * exchange, 1.15),
        ("data 2", 2 * 1.1 * exchange, 2 * 1.15),
        ("replicated", 1.1 * own / 1e3, 1.15),
    ):
        yield f"muon, {setting}: kB of collectives", bound, worst(["muon"], setting, kilobytes)
        # After the iterations, where parameters are replicated: of each shape, and of what remains.
        gathers = worst(["muon"], setting, lambda row: row.collectives.number["all-gather"])
        yield f"muon, {setting}: all-gathers", 0 if setting == "FSDP" else 2 * len(SHAPES), gathers
        reduces = worst(["muon"], setting, lambda row: row.collectives.number["all-reduce"])
        yield f"muon, {setting}: all-reduces", 0, reduces
        yield f"muon, {setting}: flops to 1/8", flops, worst(["muon"], setting, lambda r: r.ratio)
        theirs = [r for (s, n, _), r in rows.items() if s.startswith(setting) and n == "optax muon"]
        found = worst(["muon"], setting, lambda r: r.flops) / min(row.flops for row in theirs)
        yield f"muon, {setting}: flops to optax's", 1, found
        if setting == "FSDP":
            found = worst(["muon"], setting, kilobytes) / min(map(kilobytes, theirs))
            yield f"muon, {setting}: kB of collectives to optax's", 1 / 20, found
    leafwise = ("adamw", "offload(adamw)")
    yield f"{', '.join(leafwise)}: collectives", 0, worst(leafwise, "", number)
    clip = ("clip + adamw",)
    found = worst(clip, "", lambda row: row.collectives.number.total())
    yield "clip + adamw: collectives, all of them all-reduces", 1, found
    found = worst(clip, "", lambda row: row.collectives.bytes.total())
    yield "clip + adamw: bytes of the all-reduce", 4, found
    found = worst(clip, "", lambda row: len(row.collectives.branches))
    yield "clip + adamw: all-reduces in a branch, after overflow", 0, found
    every = (*leafwise, *clip, "muon")
    share = 1.02 / DEVICES
    yield f"{', '.join(every)}, FSDP: share of state", share, worst(every, "FSDP", share_of)
    for setting, sizes in (("data 2", 4), ("replicated", 1)):
        # The all-gather; for partial gradients the reduce-scatter, too.
        for name, ways in (("zero(adamw)", 1), ("zero(adamw), partial", 2)):
            found = worst([name], setting, share_of)
            yield f"{name}, {setting}: share of state", share, found
            bound = ways * own / sizes / 1e3
            yield f"{name}, {setting}: kB of collectives", bound, worst([name], setting, kilobytes)
    ours = [name for name, candidate in CANDIDATES.items() if candidate.ours]
    yield "gradtx: difference to one device", 1e-12, worst(ours, "", lambda row: row.difference)


def share_of(row: Row) -> float:
    return max(row.shares)


def measured(only: str) -> tuple[Rows, list[list[str]]]:
    """Returns the rows, and the lines of the table; kinds of axes with equal cells share a line."""
    rows: Rows = {}
    lines: list[list[str]] = []
    for setting, (sizes, spec) in SETTINGS.items():
        for name, candidate in CANDIDATES.items():
            if only not in name:
                continue
            alone, alike = on_one_device(candidate), dict[tuple[str, ...], list[str]]()
            for axes in ("explicit", "shard", "automatic"):
                kind = AxisType.Explicit if axes == "explicit" else AxisType.Auto
                mesh = jax.make_mesh((*sizes.values(),), (*sizes,), axis_types=(kind,) * len(sizes))
                if not candidate.fits(axes, mesh):
                    continue
                # JAX wants a mesh with explicit axes to be in context.
                context = jax.set_mesh(mesh) if axes == "explicit" else contextlib.nullcontext()
                try:
                    with context:
                        row = row_of(candidate, axes, mesh, spec, alone)
                except Exception as error:
                    if candidate.ours:
                        raise
                    cells = ("", f"raises {type(error).__name__}", *[""] * 5)
                else:
                    rows[setting, name, axes] = row
                    cells = row.cells()
                alike.setdefault(cells, []).append(axes)
            lines += [[setting, name, ", ".join(axes), *cells] for cells, axes in alike.items()]
    return rows, lines


# ---- Tracing and compiling ----------------------------------------------------------------------

TIMED = {
    "adamw": "optax adamw",
    "clip + adamw": "optax clip + adamw",
    "muon": "optax muon",
    "zero(adamw)": "optax adamw",
    "zero(muon)": "optax muon",
}


def times_of(candidate: Candidate, axes: str, layers: int) -> tuple[float, float]:
    """Returns the processor seconds for tracing and lowering, and for compiling a step."""
    setting = "replicated (8)" if candidate.wrapper else "FSDP (8)"
    sizes, spec = SETTINGS[setting]
    kind = AxisType.Explicit if axes == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((*sizes.values(),), (*sizes,), axis_types=(kind,) * len(sizes))
    with jax.set_mesh(mesh) if axes == "explicit" else contextlib.nullcontext():
        params = placed(arrays(0, np.float32, layers), mesh, spec)
        tx = candidate.over(axes, params)
        state = tx.init(params)
        jax.clear_caches()
        start = time.process_time()
        lowered = jax.jit(tx.update).lower(params, state, params)
        traced = time.process_time()
        lowered.compile()
        return traced - start, time.process_time() - traced


def times() -> list[list[str]]:
    """Returns the lines of the table of times."""
    lines = []
    for layers in (LAYERS, 4 * LAYERS):
        for ours, theirs in TIMED.items():
            base = times_of(CANDIDATES[theirs], "automatic", layers)
            for axes in ("explicit", "shard"):
                found = times_of(CANDIDATES[ours], axes, layers)
                ratios = (f"{x:.2f} s, {x / y:.2f}" for x, y in zip(found, base, strict=True))
                lines.append([str(layers), ours, axes, *ratios])
    return lines


def main() -> None:
    """Prints the table, and what is asked of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="only optimizers whose name contains this")
    parser.add_argument("--times", action="store_true", help="tracing and compiling")
    args = parser.parse_args()
    if args.times:
        print(f"{machine('jax', 'optax', 'gradtx', 'numpy')}\n")
        print(markdown_table(["layers", "optimizer", "axes", "trace, lower", "compile"], times()))
        return
    only = args.only
    rows, lines = measured(only)
    header = ["setting", "optimizer", "axes", "state, kB", "shares of state", "collectives", "kB"]
    print(f"{machine('jax', 'optax', 'gradtx', 'numpy')}\n")
    print(markdown_table([*header, "MFlop", "to 1/8", "difference"], lines))
    if only:
        return
    cells = [
        [what, f"{bound:.4g}", f"{found:.4g}", "yes" if found <= bound else "no"]
        for what, bound, found in figures(rows)
    ]
    print()
    print(markdown_table(["figure", "asked, at most", "measured", "reached"], cells))


if __name__ == "__main__":
    main()
