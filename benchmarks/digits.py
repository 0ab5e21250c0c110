"""All optimizers of the catalog on digits, each at the best of its own learning rates.

    python benchmarks/digits.py [OPTIMIZER ...] [--epochs N] [--seeds N] [--out DIR] [--page FILE]

The problem is a network with two hidden layers of 32 on scikit-learn's digits, batches of 64. (The
command `gradtx race` has another network, and other numbers of seeds and epochs, by default.) Each
optimizer starts from nine rates, half a decade apart, around its usual one, to which the race adds
others until the best is not at an edge. Optimizers that have no learning rate run once for each
seed, as they are. Rates that are finished in --out are not run again, so that after an addition to
the catalog only the new optimizer runs. --page writes the table into a page, and a picture beside
it.
"""

import argparse
import datetime
import math
from pathlib import Path

from harness import machine, write_between

from gradtx import catalog, train
from gradtx._table import markdown_table, text_table
from gradtx.draw.style import COLOURS, finish, new_figure, png
from gradtx.racing import Entrant, Race, classification, enter, run_race
from gradtx.racing.results import Standing
from gradtx.train.files import write_atomically

HEADER = ["", "optimizer", "best rate", "loss", "range", "test accuracy", "diverged", "needs"]


def untuned(entry: catalog.Entry) -> bool:
    """Returns whether an optimizer has no learning rate; Adafactor's steps have one."""
    return entry.scale_free and entry.usual_rate is None


def entrants(names: list[str]) -> list[Entrant]:
    """Returns the entrants, with one rate where there is nothing to tune."""
    field = []
    for entrant in enter(names):
        entry = catalog.get(entrant.name)
        if untuned(entry):
            rate = float(entry.hyperparameters[entry.rate] or 1.0)
            entrant = entrant._replace(rates=(rate,), widen=False)
        field.append(entrant)
    return field


def cells(place: int, s: Standing) -> list[str]:
    entry = catalog.get(s.optimizer)
    mark = {"": "", "low": " <", "high": " >"}[s.at_edge]
    low, high = s.loss_range
    return [
        str(place),
        f"`{s.optimizer}`",
        f"{s.learning_rate:.3g}{mark}" if not untuned(entry) else "none",
        f"{s.loss:.2e}",
        f"{low:.2e} to {high:.2e}",
        "" if s.accuracy is None else f"{s.accuracy:.1%}",
        f"{s.diverged}/{s.runs}" if s.diverged else "",
        ", ".join(entry.needs),
    ]


def picture(race: Race, standings: list[Standing]) -> bytes:
    """Draws the final loss of all optimizers, median and range, the best one on top."""
    figure = new_figure(6.5, 0.6 + 0.135 * len(standings), dpi=100)
    axes = figure.subplots()
    for place, s in enumerate(standings):
        low, high = s.loss_range
        colour = COLOURS[1 if untuned(catalog.get(s.optimizer)) else 0]
        axes.plot([low, high], [place, place], color=colour, linewidth=1)
        mark = {"": "o", "low": "<", "high": ">"}[s.at_edge]
        axes.plot([s.loss], [place], color=colour, marker=mark, markersize=3.5, linestyle="")
    axes.set_xscale("log")
    finite = [s.loss for s in standings if math.isfinite(s.loss)]
    axes.set_xlim(min(s.loss_range[0] for s in standings) / 1.5, 2 * max(finite))
    axes.set_ylim(len(standings) - 0.4, -0.6)
    axes.set_yticks(range(len(standings)), [s.optimizer for s in standings], fontsize=6.5)
    axes.set_xlabel("final training loss (nats, log scale)")
    axes.set_title(
        f"{race.title}: median of three seeds, lowest to highest\norange: no learning rate; "
        "triangle: the best rate so far, at an edge",
        fontsize=8,
        loc="left",
    )
    finish(axes)
    return png(figure, colours=16)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--page", type=Path, help="the page that gets the table, and a picture")
    args = parser.parse_args()

    hidden = (32, 32)
    problem = classification(train.mlp(hidden), train.load(), 64)
    config = {**problem.config, "hidden": str(hidden)}
    problem = problem._replace(title="digits · two layers of 32", config=config)
    field = entrants(args.names or catalog.names())
    race = run_race(problem, field, seeds=args.seeds, epochs=args.epochs, out=args.out, lines=True)
    standings = race.standings()
    rows = [cells(place, s) for place, s in enumerate(standings, 1)]
    print(f"\n{text_table(HEADER, rows, 'r  rrrr')}")
    if args.page:
        note = (
            f"`python benchmarks/digits.py`: {len(standings)} optimizers, "
            f"{args.epochs * problem.steps} steps, {args.seeds} seeds, {len(race.rows)} runs; "
            f"{machine('jax', 'gradtx')}; {datetime.date.today()}."
        )
        write_between(args.page, "digits", f"{note}\n\n{markdown_table(HEADER, rows)}")
        write_atomically(args.page.with_name("races.png"), picture(race, standings))


if __name__ == "__main__":
    main()
