"""Optimizers on a small language model, each at the best of its learning rates, three seeds.

    python benchmarks/text.py [OPTIMIZER ...] [--size small|gpt2] [--batch-size N] [--seeds N]
    python benchmarks/text.py --times [--out DIR]        # on a quiet machine
    python benchmarks/text.py --page docs/matrices.md    # writes the table and docs/text.png

The problem is `gradtx.racing.language_model`, characters of Python's help texts. The optimizers are
those of FIELD; others are those of VARIANTS and of the catalog, with their defaults. All start from
the same rates, to which the race adds others until the best is not at an edge; rates are constant
during a run, and the optimizers of FIELD have no weight decay. Those without a learning rate keep
multiples of their default. Rates that are finished in --out are not run
again. The size gpt2 has the blocks of GPT-2 small (12 layers of width 768) and needs an
accelerator.

--times measures steps only, gradient included, one optimizer at a time, and keeps the result in
--out/times.json. The losses do not depend on the load of the machine, the times do. The columns:

- loss: the median loss over the seeds on text that is not trained on, after all steps, in nats a
  character, with the range of the seeds;
- in AdamW's time: the same after as many steps as take the time of AdamW's run;
- steps to AdamW's loss: those after which the loss is AdamW's final one, and the time that they
  take;
- step: the time of a step, and its ratio to AdamW's;
- state: bytes of state for each parameter.
"""

import argparse
import datetime
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, side_by_side, write_between

import gradtx
from gradtx._table import markdown_table, text_table
from gradtx.draw.style import png
from gradtx.racing import Entrant, Problem, Race, enter, language_model, rate_range, run_race
from gradtx.train import TrainingError
from gradtx.train.files import write_atomically

RATES = rate_range(1e-3, 0.1, 5)
SIZES = {
    "small": {"width": 32, "layers": 2, "heads": 4, "context": 32, "examples": 1600},
    "gpt2": {"width": 768, "layers": 12, "heads": 12, "context": 256, "examples": 1600},
}
MEMORY = (
    "gpt2 has 85 million parameters: a step of AdamW needs 12 GB with 32 sequences, of which 1 GB "
    "are parameters and moments; shampoo and soap have 3 GB more (default: small)"
)
HIDDEN = gradtx.hidden_matrices()
FIELD: dict[str, Callable[[Any], gradtx.GradientTransformation]] = {
    "adamw": lambda rate: gradtx.adamw(rate, weight_decay=0.0),
    "muon": lambda rate: gradtx.muon(rate, muon_weight_dimension_numbers=HIDDEN),
    "normuon": gradtx.normuon,
    "dion": lambda rate: gradtx.dion(rate, weight_decay=0.0),
    "scion": gradtx.scion,
    "shampoo": gradtx.shampoo,
    "soap": lambda rate: gradtx.soap(rate, weight_decay=0.0),
    "kron": gradtx.kron,
}
VARIANTS: dict[str, Callable[[Any], gradtx.GradientTransformation]] = {
    "normuon_nesterov": lambda rate: gradtx.normuon(rate, nesterov=True),
    "muon_heavy_ball": lambda rate: gradtx.muon(
        rate, nesterov=False, muon_weight_dimension_numbers=HIDDEN
    ),
}
HEADER = ["optimizer", "rate", "loss", "range", "in AdamW's time", "steps to AdamW's loss"]
HEADER += ["time to it", "step", "ratio", "state"]


def entrants(names: Sequence[str], rates: Sequence[float] | None = None) -> list[Entrant]:
    """Returns the entrants of a race by their names.

    Args:
      names: names of FIELD, of VARIANTS or of the catalog.
      rates: their rates, from which the race may go on. Default: those of the catalog.
    """
    known = {**FIELD, **VARIANTS}
    field = enter({name: known.get(name, name) for name in names}, rates)
    return [entrant._replace(widen=True) for entrant in field]


def step_of(problem: Problem, tx: gradtx.GradientTransformation) -> Callable[[], float]:
    """Returns the function that runs compiled training steps and returns the seconds of one."""

    tx = gradtx.with_extra_args_support(tx)

    def step(params: Any, state: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            return problem.loss(params, batch, jnp.ones(len(batch), bool))

        value, g = jax.value_and_grad(loss)(params)
        updates, state = tx.update(
            g, state, params, value=value, grad=g, value_fn=loss, obj_fn=loss
        )  # fmt: skip
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
    held = sum(x.size * x.dtype.itemsize for x in state)
    return held / sum(x.size for x in jax.tree.leaves(params))


def steps_to(goal: float, steps: Sequence[int], losses: Sequence[float]) -> float:
    """Returns the steps after which a curve first reaches a loss, linear between measurements."""
    for i, loss in enumerate(losses):
        if loss <= goal:
            return float(np.interp(-goal, [-losses[i - 1], -loss], [steps[i - 1], steps[i]]))
    return math.inf


def table(
    race: Race, field: Sequence[Entrant], problem: Problem, seconds: dict[str, float]
) -> list[list[str]]:
    """Returns the rows, the best optimizer first; without times where none are measured."""
    curves, rows = {}, []
    makers = {entrant.name: entrant.make for entrant in field}
    standings = [s for s in race.standings() if s.optimizer in makers]
    for s in standings:
        runs = race.runs_of(s.optimizer, s.learning_rate)
        curves[s.optimizer] = runs[0].steps, np.median([r.loss for r in runs], axis=0)
    steps, goal = curves["adamw"][0], curves["adamw"][1][-1]
    for s in standings:
        name, losses = s.optimizer, curves[s.optimizer][1]
        edge = {"": "", "low": " <", "high": " >"}[s.at_edge]
        first = steps_to(goal, steps, losses)
        row = [name, f"{s.learning_rate:.3g}{edge}", f"{s.loss:.3f}"]
        row += [f"{s.loss_range[0]:.3f} to {s.loss_range[1]:.3f}", "", "", "", "", ""]
        row[5] = f"{first:.0f}" if math.isfinite(first) else "-"
        if name in seconds and "adamw" in seconds:
            there = min(steps[-1] * seconds["adamw"] / seconds[name], steps[-1])
            row[4] = f"{np.interp(there, steps, losses):.3f}"
            row[6] = f"{first * seconds[name]:.2f} s" if math.isfinite(first) else "-"
            row[7] = f"{1e3 * seconds[name]:.2f} ms"
            row[8] = f"{seconds[name] / seconds['adamw']:.2f}"
        state = bytes_per_parameter(problem, makers[name](s.learning_rate))
        rows.append([*row, f"{state:.1f} B"])
    return rows


def curves(race: Race) -> Any:
    """Draws the loss by step without its fall in the first epoch, which hides the differences."""
    figure = race.curves()
    (axes,) = figure.axes
    shown = [race.runs_of(s.optimizer, s.learning_rate) for s in race.standings()]
    later = [loss for runs in shown for row in runs for loss in row.loss[1:]]
    margin = 0.03 * (max(later) - min(later))
    axes.set_yscale("linear")
    axes.set_ylim(min(later) - margin, max(later) + margin)
    axes.set_ylabel(f"loss ({race.unit})")
    return figure


def measured(race: Race, field: Sequence[Entrant], problem: Problem, file: Path) -> dict[str, Any]:
    """Measures the steps of all optimizers, and keeps them in a file."""
    best = {s.optimizer: s.learning_rate for s in race.standings()}
    runs = {e.name: step_of(problem, e.make(best[e.name])) for e in field if e.name in best}
    seconds = {name: float(np.median(x)) for name, x in side_by_side(runs, 9).items()}
    where = f"{machine('jax', 'gradtx')}, {datetime.date.today()}"
    write_atomically(file, json.dumps({"machine": where, "seconds": seconds}).encode())
    return {"machine": where, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[*FIELD])
    parser.add_argument("--size", choices=SIZES, default="small", help=MEMORY)
    parser.add_argument("--batch-size", type=int, default=32, help="sequences (default: 32)")
    parser.add_argument("--epochs", type=int, default=6, help="of 50 steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--times", action="store_true", help="measure steps, run no races")
    parser.add_argument("--page", type=Path, help="the page that gets the table, and a picture")
    args = parser.parse_args()

    out = args.out or Path("runs") / f"text-{args.size}"
    try:
        field = entrants([*dict.fromkeys(["adamw", *args.names])], RATES)
    except TrainingError as error:
        raise SystemExit(
            f"{error}\nbeside the catalog, there are {', '.join([*FIELD, *VARIANTS])}"
        ) from None
    sizes = {**SIZES[args.size], "examples": 50 * args.batch_size}
    problem = language_model(**sizes, batch_size=args.batch_size)
    running = [] if args.times else field
    race = run_race(problem, running, seeds=args.seeds, epochs=args.epochs, out=out, lines=True)
    if "adamw" not in race.optimizers:
        raise SystemExit(f"{out} has no race of adamw: run this without --times first")
    file = out / "times.json"
    if args.times:
        times = measured(race, field, problem, file)
    else:
        times = json.loads(file.read_text()) if file.exists() else {"machine": "", "seconds": {}}

    rows = table(race, field, problem, times["seconds"])
    length = f"{args.epochs * problem.steps} steps, {args.seeds} seeds"
    print(f"\n{problem.title}, {args.size}: {length}; times: {times['machine'] or 'not measured'}")
    print(text_table(HEADER, rows, " rrrrrrrrr"))
    if args.page:
        where = times["machine"] or "not measured"
        note = f"`python benchmarks/text.py`: {length}. Times: {where}."
        cells = [[f"`{name}`", *others] for name, *others in rows]
        write_between(args.page, "text", f"{note}\n\n{markdown_table(HEADER, cells)}")
        picture = args.page.with_name("text.png")
        write_atomically(picture, png(curves(race), colours=64))
    for name, figure in (("curves", race.curves()), ("rates", race.rates())):
        write_atomically(out / f"{name}.png", png(figure))
    print(f"pictures: {out}/curves.png, rates.png")


if __name__ == "__main__":
    main()
