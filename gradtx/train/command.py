"""The command `gradtx train`."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any, TypeVar

from gradtx.train.errors import DivergenceError, TrainingError
from gradtx.train.folder import RunFolder
from gradtx.train.job import peak_rate, run as run_job
from gradtx.train.models import MODELS
from gradtx.train.options import Options, flag
from gradtx.train.report import loss_text
from gradtx.train.schedules import SCHEDULES, schedule_help
from gradtx.train.settings import parse_settings

_T = TypeVar("_T", int, float)

DESCRIPTION = "Train an image classifier with any optimizer of the catalog."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `gradtx train` to a parser.

    Options that are not given do not appear in the parsed arguments, so that `--resume` can read
    them from the checkpoint.

    Args:
      parser: the parser.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "schedules, with the settings that --schedule-set may change, and their defaults:\n"
        f"{schedule_help()}"
    )

    def add(name: str, metavar: str, text: str, **more: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=text, default=argparse.SUPPRESS, **more)

    add(
        "--data",
        "PATH",
        "'digits' (the default: scikit-learn's handwritten digits), a folder with MNIST's four IDX "
        "files, plain or .gz, or a .npz file with x_train, y_train, x_test, y_test",
    )
    add("--model", "NAME", f"{', '.join(MODELS)} (default: {Options.model})")
    add(
        "--optimizer",
        "NAME",
        f"any optimizer that `gradtx list` shows (default: {Options.optimizer})",
    )
    add(
        "--set",
        "KEY=VALUE",
        "a hyperparameter of the optimizer, such as b1=0.8 or nesterov=true; repeatable",
        action="append",
    )
    add(
        "--learning-rate",
        "X",
        "the peak learning rate (default: the optimizer's, or else the usual one for networks)",
    )
    add("--schedule", "NAME", f"{', '.join(SCHEDULES)} (default: {Options.schedule})")
    add(
        "--schedule-set",
        "KEY=VALUE",
        "a setting of the schedule, such as every=20 or final=0.1, as listed below; repeatable",
        action="append",
    )
    add("--batch", "N", f"examples in a mini-batch, or 'full' (default: {Options.batch})")
    add("--epochs", "N", f"number of epochs (default: {Options.epochs})")
    add("--seed", "N", f"seed of the initial parameters and of shuffling (default: {Options.seed})")
    add(
        "--weight-decay",
        "X",
        "the weight decay: the optimizer's own if it has one, an L2 penalty otherwise (default: "
        "the optimizer's, or none)",
    )
    add("--clip", "X", "clip the gradient to this global norm (default: no clipping)")
    add("--out", "DIR", "the run's folder (default: runs/DATA-MODEL-OPTIMIZER)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out, whose options need not be given again; --epochs and "
        "--learning-rate may differ; if there is none and options are given, start it",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")


def run(args: argparse.Namespace) -> int:
    """Trains according to the parsed arguments; errors become one message and an exit code.

    Args:
      args: the arguments, from a parser with `add_arguments`.

    Returns:
      0, or 1 if the run could not be finished, 2 if it could not be started, 130 after Ctrl-C.
    """
    folder = None
    try:
        if args.resume and args.overwrite:
            raise TrainingError(
                "--resume continues a run and --overwrite replaces it: give only one of them"
            )
        given = _given(vars(args))
        folder = RunFolder(getattr(args, "out", None) or Options(**given).folder)
        options = _options(given, folder, args.resume)
        run_job(options, folder.path, resume=args.resume, overwrite=args.overwrite)
    except DivergenceError as error:
        return _fail(f"{error}\n{_kept(folder, diverged=True)}", 1)
    except TrainingError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail(f"interrupted\n{_kept(folder)}", 130)
        sys.stdout.flush()
        os._exit(130)  # sys.exit would wait for the epoch that JAX is still computing
    except BrokenPipeError:
        # The reader of our output has closed it; leave nothing for the interpreter to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"output closed\n{_kept(folder)}", 1)
    except OSError as error:
        return _fail(f"{error}\n{_kept(folder)}", 1)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"gradtx train: {message.rstrip()}", file=sys.stderr)
    return code


def _kept(folder: RunFolder | None, diverged: bool = False) -> str:
    """Returns how to continue the run, if it has a checkpoint.

    As it is, a run that diverged would diverge again: the learning rate must be another.
    """
    if folder is None or not folder.checkpoint.exists():
        return ""
    command, out = "gradtx train --resume", f"--out {shlex.quote(str(folder.path))}"
    if not diverged:
        return f"continue with: {command} {out}"
    rate = peak_rate(Options(**folder.config()["options"]))
    if rate is None:
        return ""
    history = folder.rewrite_metrics()
    last = (
        f"epoch {len(history)}, train loss {loss_text(history[-1].train_loss)}"
        if history
        else "start"
    )
    return (
        f"the last finite state is saved ({last}); continue from it with a tenth of the rate "
        f"{rate:g}:\n{command} --learning-rate {rate / 10:g} {out}\n"
        "or, if its loss has risen already, start again with another rate and --overwrite"
    )


def _options(given: dict[str, Any], folder: RunFolder, resume: bool) -> Options:
    """Completes the given options from the checkpoint of the run to resume, or with defaults."""
    if resume and folder.checkpoint.exists():
        return Options(**{**folder.config()["options"], **given})
    if resume and not given:
        raise TrainingError(
            f"nothing to resume: {folder.checkpoint} does not exist; to start a new run, give its "
            "options"
        )
    return Options(**given)


def _given(args: dict[str, Any]) -> dict[str, Any]:
    """Parses the given texts into values for `Options`."""
    given = {name: args[name] for name in ("model", "optimizer", "schedule") if name in args}
    if "data" in args:
        # An absolute path, so that the run can be resumed from another folder.
        data = args["data"]
        given["data"] = data if data == Options.data else str(Path(data).absolute())
    for name in ("set", "schedule_set"):
        if name in args:
            given[name] = parse_settings(flag(name), args[name])
    for name in ("learning_rate", "weight_decay", "clip"):
        if name in args:
            given[name] = _number(name, args[name], float, "a number")
    for name in ("epochs", "seed"):
        if name in args:
            given[name] = _number(name, args[name], int, "an integer")
    if "batch" in args:
        full = args["batch"] == "full"
        given["batch"] = (
            "full" if full else _number("batch", args["batch"], int, "a number or full")
        )
    return given


def _number(name: str, text: str, kind: type[_T], what: str) -> _T:
    try:
        return kind(text)
    except ValueError:
        raise TrainingError(f"{flag(name)} must be {what}, got {text!r}") from None
