"""The command `gradtx race`, on the data and models of `gradtx train`."""

import argparse
import os
import sys
from pathlib import Path
from typing import TypeVar

from gradtx.draw.style import png
from gradtx.racing.entrants import enter, rate_range
from gradtx.racing.leaderboard import Race
from gradtx.racing.problems import classification
from gradtx.racing.run import run_race
from gradtx.train.data import load
from gradtx.train.errors import TrainingError, extra
from gradtx.train.files import write_atomically
from gradtx.train.models import MODELS
from gradtx.train.options import Options

_T = TypeVar("_T", int, float)

DESCRIPTION = (
    "Race optimizers over learning rates and seeds, with one compiled program for each optimizer."
)
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
        help=f"any optimizers that `gradtx list` shows (default: {' '.join(FIELD)})",
    )

    def add(name: str, metavar: str, default: str | None, text: str) -> None:
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(name, metavar=metavar, default=default, help=f"{text}{shown}")

    add("--data", "PATH", Options.data, "as for `gradtx train`")
    add("--model", "NAME", Options.model, ", ".join(MODELS))
    add("--batch", "N", str(Options.batch), "examples in a mini-batch, or 'full'")
    add(
        "--rates",
        "LOW:HIGH:COUNT",
        None,
        "geometrically spaced learning rates, or a list separated by commas; learning-rate-free "
        "optimizers always use multiples of their default (default: multiples of the "
        "optimizer's usual rate)",
    )
    add(
        "--seeds",
        "N",
        "4",
        "number of seeds, which decide the initial parameters and the order of examples",
    )
    add("--epochs", "N", "5", "number of epochs")
    add("--target", "X", "0.95", "the test accuracy to which steps are counted")
    add("--devices", "N", None, "number of devices that share the runs (default: all)")
    add("--out", "DIR", None, "the race's folder (default: runs/race-DATA-MODEL)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="start from the beginning (default: optimizers that are finished in --out are not run "
        "again)",
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
    # `Options` checks the rest, with the messages of `gradtx train`.
    batch = args.batch if args.batch == "full" else _number("--batch", args.batch, int)
    epochs = _number("--epochs", args.epochs, int)
    options = Options(data=args.data, model=args.model, batch=batch, epochs=epochs)
    seeds = _number("--seeds", args.seeds, int)
    target = _number("--target", args.target, float)
    devices = None if args.devices is None else _number("--devices", args.devices, int)
    data = load(options.data)
    size = len(data.y_train) if options.batch == "full" else int(options.batch)
    out = Path(args.out or Path("runs") / f"race-{Path(args.data).stem}-{args.model}")

    def finish(result: Race) -> None:
        print(f"\n{result.table()}\n\n{_note(result)}")
        for name, figure in (("curves", result.curves()), ("rates", result.rates())):
            write_atomically(out / f"{name}.png", png(figure))
        print(f"see {out}: race.jsonl, curves.png, rates.png")

    run_race(
        classification(MODELS[options.model](), data, size),
        field,
        seeds=seeds,
        epochs=options.epochs,
        target=target,
        out=out,
        overwrite=args.overwrite,
        devices=devices,
        lines=True,
        finish=finish,
    )


def _note(result: Race) -> str:
    seeds = len({row.seed for row in result.rows})
    return (
        f"Each optimizer is shown at its best rate, the one with the lowest median final loss, "
        f"with the median over {seeds} seeds, and the range, of the final loss on the training "
        "examples and of the final accuracy on the test examples. Steps are counted to the end of "
        "the epoch that reaches the target; seconds are a run's share of its grid's time, without "
        "compilation."
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
