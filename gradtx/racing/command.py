"""The command `gradtx race`, on the data and models of `gradtx train`, or on a language model."""

import argparse
import os
import sys
from pathlib import Path
from typing import TypeVar

from gradtx import catalog
from gradtx._arguments import counted
from gradtx._table import filled, terminal_width
from gradtx.draw.style import png
from gradtx.racing.entrants import enter, rate_range
from gradtx.racing.grid import Problem
from gradtx.racing.leaderboard import Race
from gradtx.racing.problems import classification
from gradtx.racing.run import run_race
from gradtx.racing.text import language_model
from gradtx.train.data import load
from gradtx.train.errors import TrainingError, extra
from gradtx.train.files import write_atomically
from gradtx.train.models import MODELS
from gradtx.train.options import Options, one_of

_T = TypeVar("_T", int, float)

DESCRIPTION = (
    "Race optimizers over learning rates and seeds, with one compiled program for each optimizer."
)
FIELD = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "lion")
PROBLEMS = {"digits": 0.95, "text": 2.2}
"""The problems and their targets, a test accuracy and a loss."""


OTHER_NAMES = {"--lr": "--rates", "--learning-rate": "--rates", "--learning-rates": "--rates"}
"""Options by names that they have elsewhere."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `gradtx race` to a parser.

    Args:
      parser: the parser.
    """
    parser.add_argument(
        "names",
        nargs="*",
        metavar="OPTIMIZER",
        help=f"any optimizers that `gradtx list` shows (default: {' '.join(FIELD)})",
    )

    def add(name: str, metavar: str, default: str | None, text: str) -> None:
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(name, metavar=metavar, default=default, help=f"{text}{shown}")

    add(
        "--problem",
        "NAME",
        "digits",
        "digits, to train a classifier on --data; or text, to predict the characters of Python's "
        "help texts with a small transformer",
    )
    add("--data", "PATH", None, f"as for `gradtx train` (default: {Options.data})")
    add("--model", "NAME", None, f"{', '.join(MODELS)} (default: {Options.model})")
    add(
        "--batch",
        "N",
        None,
        f"examples in a mini-batch, or 'full' (default: {Options.batch}; for text 32)",
    )
    add(
        "--rates",
        "LOW:HIGH:COUNT",
        None,
        "geometrically spaced learning rates, or a list separated by commas; learning-rate-free "
        "optimizers always use multiples of their default (default: multiples of the "
        "optimizer's usual rate, and more while the best is the smallest or the largest)",
    )
    add(
        "--seeds",
        "N",
        "4",
        "number of seeds, which decide the initial parameters and the order of examples",
    )
    add("--epochs", "N", "5", "number of epochs")
    add(
        "--target",
        "X",
        None,
        "the test accuracy, or for text the loss, to which steps are counted (default: "
        f"{PROBLEMS['digits']}; for text {PROBLEMS['text']})",
    )
    add("--devices", "N", None, "number of devices that share the runs (default: all)")
    add("--out", "DIR", None, "the race's folder (default: runs/race-DATA-MODEL or runs/race-text)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="start from the beginning (default: rates of an optimizer that are finished in --out "
        "are not run again)",
    )


def run(args: argparse.Namespace) -> int:
    """Races according to the parsed arguments; errors become one message and an exit code.

    Args:
      args: the arguments, from a parser with `add_arguments`.

    Returns:
      0, or 1 if the race could not be finished, 2 if it could not be started, 130 after Ctrl-C.
    """
    try:
        _race(args)
    except TrainingError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues with the unfinished optimizers", 130)
        sys.stdout.flush()
        os._exit(130)  # sys.exit would wait for the grid that JAX is still computing
    except BrokenPipeError:
        raise  # handled in `main`
    except OSError as error:
        return _fail(str(error), 1)
    return 0


def _race(args: argparse.Namespace) -> None:
    extra("matplotlib.figure", "to draw the race")  # before hours of training
    rates = None if args.rates is None else _rates(args.rates)
    field = enter(args.names or FIELD, rates)
    for entrant in field:
        if rates is not None and catalog.get(entrant.name).scale_free:
            print(
                f"gradtx race: {entrant.name} is learning-rate-free, so that --rates do not apply; "
                "it runs with multiples of its default",
                file=sys.stderr,
            )
    one_of("problem", args.problem, PROBLEMS)
    epochs = _number("--epochs", args.epochs, int)
    seeds = _number("--seeds", args.seeds, int)
    goal = args.target
    target = PROBLEMS[args.problem] if goal is None else _number("--target", goal, float)
    devices = None if args.devices is None else _number("--devices", args.devices, int)
    problem, name = (_digits if args.problem == "digits" else _text)(args, epochs)
    out = Path(args.out or Path("runs") / f"race-{name}")

    def finish(result: Race) -> None:
        width = terminal_width()
        print(f"\n{result.table(width)}\n\n{filled(_note(problem, result), width)}")
        for name, figure in (("curves", result.curves()), ("rates", result.rates())):
            write_atomically(out / f"{name}.png", png(figure))
        print(f"see {out}: race.jsonl, curves.png, rates.png")

    run_race(
        problem,
        field,
        seeds=seeds,
        epochs=epochs,
        target=target,
        out=out,
        overwrite=args.overwrite,
        devices=devices,
        lines=True,
        finish=finish,
    )


def _digits(args: argparse.Namespace, epochs: int) -> tuple[Problem, str]:
    """Returns the classifier, and the name of the race's folder."""
    batch = str(Options.batch) if args.batch is None else args.batch
    # `Options` checks the rest, with the messages of `gradtx train`.
    options = Options(
        data=Options.data if args.data is None else args.data,
        model=Options.model if args.model is None else args.model,
        batch="full" if batch == "full" else _number("--batch", batch, int),
        epochs=epochs,
    )
    data = load(options.data)
    examples = len(data.y_train) if options.batch == "full" else int(options.batch)
    name = f"{Path(options.data).stem}-{options.model}"
    return classification(MODELS[options.model](), data, examples), name


def _text(args: argparse.Namespace, epochs: int) -> tuple[Problem, str]:
    """Returns the language model, and the name of the race's folder."""
    for flag, given in (("--data", args.data), ("--model", args.model)):
        if given is not None:
            raise TrainingError(f"{flag} {given}: the problem text has its own; leave {flag} out")
    if args.batch is None:
        return language_model(), "text"
    return language_model(batch_size=_number("--batch", args.batch, int)), "text"


def _note(problem: Problem, result: Race) -> str:
    seeds = len({row.seed for row in result.rows})
    return (
        f"Each optimizer is shown at its best rate, the one with the lowest median final loss, "
        f"with the median over {counted(seeds, 'seed')} and the range of {problem.measured}. Steps "
        "are counted to the end of the epoch that reaches the target."
    )


def _rates(text: str) -> tuple[float, ...]:
    if ":" not in text:
        return tuple(_number("--rates", part, float) for part in text.split(","))
    parts = text.split(":")
    if len(parts) != 3:
        raise TrainingError(f"--rates must be LOW:HIGH:COUNT, such as 1e-4:1:9, got {text!r}")
    low, high = (_number("--rates", part, float) for part in parts[:2])
    return rate_range(low, high, _number("--rates", parts[2], int))


def _number(flag: str, text: str, kind: type[_T]) -> _T:
    try:
        return kind(text)
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise TrainingError(f"{flag} must be {what}, got {text!r}") from None


def _fail(message: str, code: int) -> int:
    print(f"gradtx race: {message.removeprefix('race: ').rstrip()}", file=sys.stderr)
    return code
