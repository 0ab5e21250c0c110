"""The command `gradtx`: train, race, draw, crosscheck, list."""

import argparse
import importlib
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import gradtx
from gradtx import catalog
from gradtx._arguments import counted, near
from gradtx._table import filled, markdown_table, terminal_width
from gradtx.crosschecking import (
    Comparison,
    comparison_table,
    crosscheck_catalog,
    factory_of,
    known_rows,
)
from gradtx.draw import command as draw
from gradtx.interop.importing import VERSION
from gradtx.racing import command as race
from gradtx.train import command as train


class _Parser(argparse.ArgumentParser):
    """A parser that answers an unknown argument in one line, with the one that resembles it.

    Attributes:
      other_names: options by names that they have in other commands.
    """

    other_names: Mapping[str, str] = {}

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # What begins like a negative number is a value, such as -1e-3 or -1:1:3, as it is from
        # Python 3.14 on; before, only plain numbers are, and the others are taken for options.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = super().parse_known_args(args, namespace)
        if not unknown:
            return parsed, unknown
        given = next((text for text in unknown if text.startswith("-")), unknown[0])
        if not given.startswith("-"):
            self.answer(f"the argument {given} is one too many", given, ())
        options = re.findall(r"--[\w-]+", self.format_usage())
        option = given.partition("=")[0]
        if option in self.other_names:
            options = [option := self.other_names[option]]
        self.answer(f"there is no option {given}", option, options)

    def answer(self, problem: str, given: str, known: Iterable[str]) -> NoReturn:
        """Prints a problem and the known name that resembles the given one, and exits."""
        similar = near(given, known)
        hint = f"did you mean {similar[0]}?" if similar else f"see `{self.prog} --help`"
        self.exit(2, f"{self.prog}: {problem}; {hint}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments. Default: those of the process.

    Returns:
      The exit code: 0 if all went well.
    """
    parser = _Parser(
        prog="gradtx", description="Gradient transformations for JAX.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"gradtx {gradtx.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    job = commands.add_parser("train", help=train.DESCRIPTION, description=train.DESCRIPTION)
    train.add_arguments(job)
    job.set_defaults(run=train.run)

    job = commands.add_parser("race", help=race.DESCRIPTION, description=race.DESCRIPTION)
    race.add_arguments(job)
    job.other_names = race.OTHER_NAMES
    job.set_defaults(run=race.run)

    job = commands.add_parser("draw", help=draw.DESCRIPTION, description=draw.DESCRIPTION)
    draw.add_arguments(job)
    job.set_defaults(run=draw.run)

    about = "Compare each optimizer with the one of the same name in optax, step by step."
    check = commands.add_parser("crosscheck", help=about, description=about)
    check.add_argument(
        "names", nargs="*", metavar="OPTIMIZER", help="optimizers to compare (default: all)"
    )
    check.add_argument("--steps", type=int, default=100, help="number of steps (default: 100)")
    check.add_argument(
        "--every-setting",
        action="store_true",
        help="also change each hyperparameter and flag in turn",
    )
    check.add_argument(
        "--known", action="store_true", help="list the known differences, as a Markdown table"
    )
    check.set_defaults(run=run_crosscheck)

    about = "List the optimizers of the catalog."
    shown = commands.add_parser("list", help=about, description=about)
    shown.add_argument(
        "names", nargs="*", metavar="OPTIMIZER", help="optimizers to list (default: all)"
    )
    shown.add_argument("--markdown", action="store_true", help="print a Markdown table")
    shown.set_defaults(run=run_list)

    given = sys.argv[1:] if argv is None else argv
    if given and not given[0].startswith("-") and given[0] not in commands.choices:
        parser.answer(f"there is no command {given[0]}", given[0], commands.choices)
    args = parser.parse_args(given)
    try:
        code = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has closed it; leave nothing for the interpreter to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def run_list(args: argparse.Namespace) -> int:
    """Prints the catalog, or some of its optimizers; returns the exit code."""
    try:
        entries = [catalog.get(name) for name in args.names] or catalog.entries()
    except catalog.UnknownOptimizer as e:
        return _fail("list", str(e))
    if not args.markdown:
        print("\n\n".join(_described(entry, terminal_width()) for entry in entries))
        return 0
    header = ["optimizer", "needs", "complex", "scale-free", "what it is", "source"]
    rows = [
        [
            entry.name,
            ", ".join(["params"] * entry.needs_params + list(entry.needs)),
            "yes" if entry.takes_complex else "no",
            "yes" if entry.scale_free else "",
            entry.summary,
            entry.source,
        ]
        for entry in entries
    ]
    print(markdown_table(header, [[f"`{row[0]}`", *row[1:]] for row in rows]))
    return 0


def _described(entry: catalog.Entry, width: int) -> str:
    """Returns the lines on an optimizer: its name and what it needs, what it is, and its paper."""
    needs = " and ".join(["params"] * entry.needs_params + list(entry.needs))
    traits = [f"needs {needs}"] * bool(needs)
    traits += ["only real numbers"] * (not entry.takes_complex)
    traits += ["scale-free"] * entry.scale_free
    told = [entry.name + (f" ({', '.join(traits)})" if traits else ""), entry.summary, entry.source]
    return "\n".join(
        textwrap.fill(
            text,
            max(width, 40),
            initial_indent="  " * (i > 0),
            subsequent_indent="  " if i else "    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for i, text in enumerate(told)
    )


def run_crosscheck(args: argparse.Namespace) -> int:
    """Prints the comparison with optax; returns the exit code, 1 if a row fails."""
    if args.known:
        print(markdown_table(["optimizer", "where", "difference"], known_rows()))
        return 0
    try:
        peer = importlib.import_module("optax")
    except ImportError as error:
        return _fail(
            "crosscheck",
            f"optax is needed, and cannot be imported ({error}): pip install 'gradtx[crosscheck]', "
            f"or optax=={VERSION}, the version that gradtx is compared with",
        )
    if (found := getattr(peer, "__version__", VERSION)) != VERSION:
        print(
            f"gradtx crosscheck: this is optax {found}; the known differences are those of optax "
            f"{VERSION}",
            file=sys.stderr,
        )
    if args.steps < 1:
        return _fail("crosscheck", f"--steps must be at least 1, got {args.steps}")

    def progress(row: Comparison) -> None:
        if sys.stderr.isatty():
            print(f"\r{row.name:<60}", end="\r", file=sys.stderr, flush=True)

    try:
        for name in args.names:
            if factory_of(peer, catalog.get(name).name) is None:
                return _fail("crosscheck", f"optax has no optimizer named {name!r}")
        rows = crosscheck_catalog(
            peer,
            args.names or None,
            steps=args.steps,
            every_setting=args.every_setting,
            progress=progress,
        )
    except catalog.UnknownOptimizer as e:
        return _fail("crosscheck", str(e))
    width = terminal_width()
    print(comparison_table(rows, ("gradtx", "optax"), width))
    failed = [row.name for row in rows if not row.ok]
    documented = sum(bool(row.note) for row in rows)
    note = (
        f"\n{len(rows)} compared over {counted(args.steps, 'step')}, {len(failed)} failed, "
        f"{documented} differ as documented. Ulps are units in the last place of each leaf's "
        "dtype; errors are relative to the float64 trajectory."
    )
    print(filled(note, width))
    return 1 if failed else 0


def _fail(command: str, message: str) -> int:
    print(f"gradtx {command}: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
