"""Memory and step time of states stored in fewer bytes, against float32, in one run.

    python benchmarks/memory.py [--sizes 4M 100M 1B] [--codecs float32 8-bit ...] [--rounds 11]
    python benchmarks/memory.py --table
    python benchmarks/memory.py --half
    python benchmarks/memory.py --quality [--seeds 3]

The first prints, for AdamW: bytes of state a parameter, measured by the buffers; the largest memory
of a step as the compiler plans it, apart from arguments that it cannot reuse; the time of a donated
step; and its bandwidth as a share of that of a copy, counting what one pass has to read and write.
The second prints the bytes of state a parameter of all optimizers with each codec. The third prints
where 10,000 small steps of bfloat16 parameters arrive. The fourth prints the loss after 800 steps
with each codec, for an MLP on digits and a small transformer on text.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, report, side_by_side, timed

import gradtx
from gradtx import catalog, train
from gradtx._table import text_table
from gradtx.racing import classification, enter, language_model, run_race

STORED = {
    "float32": {},
    "bfloat16": {"mu": "bfloat16", "nu": "bfloat16"},
    "8-bit": {"mu": "int8", "nu": "uint8"},
    "8-bit nearest": {"mu": "int8_nearest", "nu": "uint8_nearest"},
    "4-bit": {"mu": "int4", "nu": "uint4"},
}
WIDTH = {"cpu": 1024}
"""The side of the matrices that are the parameters, by platform; 4096 on accelerators."""


def adamw(name: str) -> gradtx.GradientTransformation:
    """Returns AdamW with its moments stored in a way."""
    tx = gradtx.adamw(1e-3)
    return gradtx.store(tx, STORED[name]) if STORED[name] else tx


def size_of(text: str) -> int:
    """Returns the number of parameters: `100M` is 100 million."""
    units = {"K": 10**3, "M": 10**6, "B": 10**9}
    return int(float(text[:-1]) * units[text[-1]]) if text[-1] in units else int(text)


def gradients(size: int) -> dict[str, jax.Array]:
    """Returns random gradients of a list of matrices, of about the given number of entries."""
    width = WIDTH.get(jax.default_backend(), 4096)
    keys = jax.random.split(jax.random.key(0), max(1, round(size / width**2)))
    make = jax.jit(lambda key: jax.random.normal(key, (width, width)))
    return {f"w{i}": make(key) for i, key in enumerate(keys)}


class Training:
    """A compiled, donated step of AdamW, and what it holds.

    Args:
      name: the way in which moments are stored.
      grads: the gradients.
    """

    def __init__(self, name: str, grads: dict[str, jax.Array]):
        tx = adamw(name)
        self.grads = grads
        self.carry = [jax.tree.map(jnp.zeros_like, grads), tx.init(grads)]

        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return gradtx.apply_updates(params, updates), state

        self.step = jax.jit(step, donate_argnums=(0, 1)).lower(*self.carry, grads).compile()
        self.parameters = sum(x.size for x in jax.tree.leaves(grads))

    def once(self) -> object:
        """Runs one step."""
        self.carry[:] = self.step(*self.carry, self.grads)
        return self.carry

    @property
    def state_bytes(self) -> float:
        """The bytes of state a parameter."""
        return sum(x.nbytes for x in jax.tree.leaves(self.carry[1])) / self.parameters

    @property
    def memory(self) -> tuple[int, int]:
        """The temporary memory, and the largest memory of a step, in bytes."""
        plan = self.step.memory_analysis()
        peak = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
        return plan.temp_size_in_bytes, peak - plan.alias_size_in_bytes

    @property
    def moved(self) -> float:
        """The bytes that one pass reads and writes: gradients, parameters and state."""
        return self.parameters * (4 + 2 * 4 + 2 * self.state_bytes)


def copying(size: int) -> Callable[[], float]:
    """Returns a function that measures the seconds in which a byte is read and one is written."""
    buffer = [jnp.ones((size // 4,), jnp.float32)]
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def once() -> object:
        buffer[0] = add(buffer[0])
        return buffer[0]

    return lambda: timed(once, 5)


def compare(size: int, names: list[str], rounds: int) -> None:
    """Prints memory and time for a number of parameters."""
    grads = gradients(size)
    trainings = {name: Training(name, grads) for name in names}
    first = trainings[names[0]]
    copied = min(16 * first.parameters, 2**31)
    print(f"\nAdamW, {first.parameters / 1e6:.0f} million parameters in {len(grads)} leaves")
    whole = first.memory[1]
    for name, training in trainings.items():
        temporary, peak = training.memory
        print(
            f"  {name:<16} {training.state_bytes:6.3f} bytes of state a parameter; temporary "
            f"{temporary / 2**20:8.2f} MiB; parameters, gradients, state and temporary "
            f"{peak / 2**20:9.2f} MiB, {peak / whole:.2f} of {names[0]}'s"
        )
    runs = {name: lambda t=t: timed(t.once, 5) for name, t in trainings.items()}
    found = side_by_side({**runs, "copy": copying(copied)}, rounds, warm=2)
    report("one step", {name: found[name] for name in runs}, names[0])
    rate = 2 * copied / min(found["copy"])
    print(f"\n  copy: {rate / 1e9:.0f} GB/s")
    for name, training in trainings.items():
        mine = training.moved / min(found[name])
        print(f"  {name:<16} {mine / 1e9:7.0f} GB/s, {mine / rate:.2f} of the copy's")


def table() -> None:
    """Prints the bytes of state a parameter of every optimizer, with every array stored alike."""
    params = {"kernel": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}
    ways = {"float32": None, "bfloat16": "bfloat16", "8-bit": "int8", "4-bit": "int4"}
    print(f"| optimizer | {' | '.join(ways)} |\n| --- |{' ---: |' * len(ways)}")
    for name in catalog.names():
        cells = [_bytes(catalog.get(name).make(), codec, params) for codec in ways.values()]
        print(f"| `{name}` | {' | '.join(f'{x:.2f}' for x in cells)} |")


def _bytes(tx: gradtx.GradientTransformation, codec: str | None, params: dict) -> float:
    state = jax.eval_shape(tx.init, params)
    large = any(math.prod(x.shape) >= 4096 for x in jax.tree.leaves(state))
    if codec is not None and large:
        state = jax.eval_shape(gradtx.store(tx, {"*": codec}).init, params)
    arrays = (x for x in jax.tree.leaves(state) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))
    return sum(x.size * x.dtype.itemsize for x in arrays) / 1024**2


def half(steps: int = 10_000, rate: float = 1e-4, width: int = 4096) -> None:
    """Prints the bytes of bfloat16 parameters and their state, and where small steps arrive."""
    sgd = gradtx.sgd(rate)
    ways = {
        "alone": sgd,
        "master_weights": gradtx.master_weights(sgd),
        "kahan": gradtx.kahan(sgd),
        "kahan, int8": gradtx.kahan(sgd, "int8"),
        "stochastic_round": gradtx.chain(sgd, gradtx.stochastic_round()),
    }
    rows, start = [], jnp.ones(width, jnp.bfloat16)
    for name, tx in ways.items():

        def step(carry, _, tx=tx):
            w, state = carry
            updates, state = tx.update(-jnp.ones_like(w), state, w)
            return (gradtx.apply_updates(w, updates), state), None

        carry = start, tx.init(start)
        run = jax.jit(lambda carry, step=step: jax.lax.scan(step, carry, length=steps)[0])
        held = sum(x.nbytes for x in jax.tree.leaves(carry)) / width
        w = np.asarray(run(carry)[0], np.float64)
        rows.append([name, f"{held:.1f}", f"{w.mean():.4f}", f"{w.std():.4f}"])
    print(f"{steps} steps of {rate} from 1")
    print(text_table(["parameters", "bytes of one", "mean", "deviation"], rows, " rrr"))


QUALITY = {
    **STORED,
    "bfloat16 stochastic": {"mu": "bfloat16_stochastic", "nu": "bfloat16_stochastic"},
    "float8": {"mu": "float8_e4m3fn", "nu": "float8_e5m2"},
    "4-bit nearest": {"mu": "int4_nearest", "nu": "uint4_nearest"},
}


def quality(seeds: int) -> None:
    """Prints the losses on digits and on text after training."""
    digits = classification(train.mlp(), train.load(), 64)
    for problem, rate, epochs in ((digits, 1e-3, 35), (language_model(), 1e-2, 8)):
        field = enter(
            {
                name: lambda rate, stored=stored: (
                    gradtx.store(gradtx.adamw(rate), stored, min_size=256)
                    if stored
                    else gradtx.adamw(rate)
                )
                for name, stored in QUALITY.items()
            },
            [rate],
        )
        with tempfile.TemporaryDirectory() as out:
            race = run_race(problem, field, seeds=seeds, epochs=epochs, out=Path(out), lines=True)
        print(f"\n{problem.title}: {epochs * problem.steps} steps, {seeds} seeds, rate {rate}")
        rows = []
        for name in QUALITY:
            losses = sorted(float(run.loss[-1]) for run in race.runs_of(name))
            told = [f"{x:.4f}" for x in (np.median(losses), losses[0], losses[-1])]
            rows.append([name, told[0], f"{told[1]} to {told[2]}"])
        print(text_table(["moments", "median loss", "range of the seeds"], rows, " rr"))


def main() -> None:
    """Prints the table, or the comparison for each size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=[4 * 10**6], type=size_of)
    parser.add_argument("--codecs", nargs="+", default=list(STORED), choices=list(STORED))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.table:
        return table()
    print(machine("jax", "gradtx", "numpy"))
    if given.half:
        return half()
    if given.quality:
        return quality(given.seeds)
    for size in given.sizes:
        compare(size, given.codecs, given.rounds)


if __name__ == "__main__":
    main()
