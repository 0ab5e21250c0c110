"""`gradtx race`: optimizers raced on the data and models of `gradtx train`."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from gradtx.draw.style import png
from gradtx.racing.entrants import enter, rate_range
from gradtx.racing.leaderboard import Race
from gradtx.racing.problems import classification
from gradtx.racing.run import run_race
from gradtx.train.checkpoint import write_atomically
from gradtx.train.data import load
from gradtx.train.errors import TrainingError, extra
from gradtx.train.models import MODELS
from gradtx.train.options import Options

DESCRIPTION = "Race optimizers x learning rates x seeds, each optimizer's grid as one program."
FIELD = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "lion")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `gradtx race` to a parser.

    Args:
      parser: the parser.
    """
    parser.add_argument(
        "names",
        nargs="*",
        metavar="OPTIMIZER",
        help=f"any that `gradtx list` shows (default: {' '.join(FIELD)})",
    )

    def add(name: str, metavar: str, default: Any, text: str) -> None:
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(name, metavar=metavar, default=default, help=f"{text}{shown}")

    add("--data", "PATH", Options.data, "as for `gradtx train`")
    add("--model", "NAME", Options.model, ", ".join(MODELS))
    add("--batch", "N", str(Options.batch), "examples in a mini-batch, or 'full'")
    add(
        "--rates",
        "LOW:HIGH:COUNT",
        None,
        "learning rates at equal ratios, or several set apart by commas; optimizers that find "
        "their step size themselves keep multiples of their default (default: multiples of the "
        "optimizer's usual rate)",
    )
    add("--seeds", "N", "4", "how many seeds, of initial parameters and order of examples")
    add("--epochs", "N", "5", "how many epochs")
    add("--target", "X", "0.95", "the test accuracy to be reached")
    add("--out", "DIR", None, "the race's folder (default: runs/race-DATA-MODEL)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew; otherwise what is finished in --out is not run again",
    )


def run(args: argparse.Namespace) -> int:
    """Races as the parsed arguments say; errors become one message and an exit code.

    Args:
      args: what a parser with `add_arguments` gave.

    Returns:
      0, or 1 if the race could not be finished, 2 if it could not be begun, 130 after Ctrl-C.
    """
    try:
        _race(args)
    except TrainingError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on with the optimizers not yet finished", 130)
        sys.stdout.flush()
        os._exit(130)  # an ordinary exit would wait for the grid that JAX is still computing
    except BrokenPipeError:
        raise  # for `main`, which knows what to do about it
    except OSError as error:
        return _fail(str(error), 1)
    return 0


def _race(args: argparse.Namespace) -> None:
    extra("matplotlib.figure", "to draw the race")  # to be heard before hours of training
    rates = None if args.rates is None else _rates(args.rates)
    field = enter(args.names or FIELD, rates)
    # `Options` checks the rest, and words what is wrong as `gradtx train` does.
    batch = args.batch if args.batch == "full" else _number("--batch", args.batch, int)
    epochs = _number("--epochs", args.epochs, int)
    options = Options(data=args.data, model=args.model, batch=batch, epochs=epochs)
    seeds = _number("--seeds", args.seeds, int)
    target = _number("--target", args.target, float)
    data = load(options.data)
    size = len(data.y_train) if options.batch == "full" else int(options.batch)
    out = Path(args.out or Path("runs") / f"race-{Path(args.data).stem}-{args.model}")
    result = run_race(
        classification(MODELS[options.model](), data, size),
        field,
        seeds=seeds,
        epochs=options.epochs,
        target=target,
        out=out,
        overwrite=args.overwrite,
        lines=True,
    )
    print(f"\n{result.table()}\n\n{_note(result)}")
    for name, figure in (("curves", result.curves()), ("rates", result.rates())):
        write_atomically(out / f"{name}.png", png(figure))
    print(f"see {out}: race.jsonl, curves.png, rates.png")


def _note(result: Race) -> str:
    seeds = len({row.seed for row in result.rows})
    return (
        f"Each with its best rate, that of the lowest median loss. Loss on the training examples, "
        f"accuracy on the test examples, at the end: median over {seeds} seeds, and range. "
        "Steps are counted to the epoch's end; seconds are a run's share of its grid, without "
        "compilation."
    )


def _rates(text: str) -> tuple[float, ...]:
    if ":" not in text:
        return tuple(_number("--rates", part, float) for part in text.split(","))
    parts = text.split(":")
    if len(parts) != 3:
        raise TrainingError(f"--rates wants LOW:HIGH:COUNT, such as 1e-4:1:9, got {text!r}")
    low, high = (_number("--rates", part, float) for part in parts[:2])
    return rate_range(low, high, _number("--rates", parts[2], int))


def _number(flag: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise TrainingError(f"{flag} must be {what}, got {text!r}") from None


def _fail(message: str, code: int) -> int:
    print(f"gradtx race: {message.removeprefix('race: ').rstrip()}", file=sys.stderr)
    return code
