"""Optimizers on a small transformer, each at the best of one grid of learning rates.

    python benchmarks/text.py [OPTIMIZER ...] [--epochs N] [--seeds N] [--out DIR]

The problem is `gradtx.racing.language_model`, characters of Python's help texts. All rates and
seeds of an optimizer are run by `gradtx.race`; finished optimizers in --out are not run again. The
columns are:

- loss: the median loss over the seeds on text that is not trained on, after all steps, in nats for
  each character, with the range of the seeds;
- in AdamW's time: the same after as many steps as take the time of AdamW's run. The time of a step
  is measured alone, gradient included, because the runs of a race share their work;
- step: that time, of a compiled step, and its ratio to AdamW's;
- state: bytes of state for each parameter.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, side_by_side

import gradtx
from gradtx._table import text_table
from gradtx.racing import Problem, enter, language_model, rate_range, run_race

RATES = rate_range(3e-4, 0.3, 7)
FIELD: dict[str, Callable[[Any], gradtx.GradientTransformation]] = {
    "adamw": lambda rate: gradtx.adamw(rate, weight_decay=0.0),
    "muon": gradtx.muon,
    "normuon": gradtx.normuon,
    "soap": gradtx.soap,
    "shampoo": gradtx.shampoo,
    "kron": gradtx.kron,
    "scion": gradtx.scion,
    "dion": gradtx.dion,
}


def step_of(problem: Problem, tx: gradtx.GradientTransformation) -> Callable:
    """Returns a compiled training step, and its first arguments."""

    def step(params: Any, state: Any, batch: Any) -> Any:
        g = jax.grad(problem.loss)(params, batch, jnp.ones(len(batch), bool))
        updates, state = tx.update(g, state, params)
        return gradtx.apply_updates(params, updates), state

    carry = [params := problem.init(jax.random.key(0)), tx.init(params)]
    batch = problem.data[0][: problem.batch_size]
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*carry, batch).compile()

    def run(steps: int = 50) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            carry[:] = compiled(*carry, batch)
        jax.block_until_ready(carry)
        return (time.perf_counter() - start) / steps

    return run


def bytes_per_parameter(problem: Problem, tx: gradtx.GradientTransformation) -> float:
    params = jax.eval_shape(problem.init, jax.random.key(0))
    state = jax.tree.leaves(jax.eval_shape(tx.init, params))
    held = sum(x.size * np.dtype(x.dtype).itemsize for x in state if hasattr(x.dtype, "itemsize"))
    return held / sum(x.size for x in jax.tree.leaves(params))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[*FIELD])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    args = parser.parse_args()

    names = list(dict.fromkeys(["adamw", *args.names]))
    problem = language_model()
    field = enter({name: FIELD[name] for name in names}, RATES)
    race = run_race(problem, field, seeds=args.seeds, epochs=args.epochs, out=args.out, lines=True)
    best = {s.optimizer: s for s in race.standings() if s.optimizer in names}
    made = {name: FIELD[name](best[name].learning_rate) for name in best}
    runs = {name: step_of(problem, tx) for name, tx in made.items()}
    seconds = {n: float(np.median(x)) for n, x in side_by_side(runs, 5).items()}

    rows = []
    for name, s in best.items():
        curves = np.median([r.loss for r in race.runs_of(name, s.learning_rate)], axis=0)
        steps = race.runs_of(name)[0].steps
        there = steps[-1] * seconds["adamw"] / seconds[name]
        low, high = s.loss_range
        edge = {"": "", "low": " <", "high": " >"}[s.at_edge]
        rows.append(
            [
                name,
                f"{s.learning_rate:.3g}{edge}",
                f"{s.loss:.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{np.interp(there, steps, curves):.3f}" if there < steps[-1] else f"{s.loss:.3f}",
                f"{1e3 * seconds[name]:.2f} ms",
                f"{seconds[name] / seconds['adamw']:.2f}",
                f"{bytes_per_parameter(problem, made[name]):.1f} B",
            ]
        )
    print(f"\n{machine('jax', 'gradtx')}")
    print(f"{problem.title}: {args.epochs * problem.steps} steps, {args.seeds} seeds")
    header = ["optimizer", "rate", "loss", "range", "in AdamW's time", "step", "ratio", "state"]
    print(text_table(header, rows, " rrrrrrr"))
    for name, figure in (("curves", race.curves()), ("rates", race.rates())):
        figure.savefig(args.out / f"{name}.png", dpi=150)
    print(f"pictures: {args.out}/curves.png, rates.png")


if __name__ == "__main__":
    main()
