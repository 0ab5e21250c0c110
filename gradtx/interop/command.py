"""The command `python -m gradtx.as_optax`."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from gradtx.interop.importing import as_optax

USAGE = """\
usage: python -m gradtx.as_optax PROGRAM.py [ARGUMENT ...]
       python -m gradtx.as_optax -m MODULE [ARGUMENT ...]

Runs a program in which every import of optax imports gradtx. Optax does not have to be
installed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a program or module with gradtx in the place of optax.

    Args:
      argv: the program and its arguments. Default: those of the process.

    Returns:
      The exit code: 0, or 2 if the arguments are invalid. The program may exit with its own before.
    """
    match sys.argv[1:] if argv is None else list(argv):
        case ["-m", module, *arguments]:
            as_optax()
            sys.argv = [module, *arguments]  # runpy replaces the first with the module's file
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [program, *arguments] if not program.startswith("-"):
            if not Path(program).exists():
                print(f"gradtx.as_optax: there is no file {program}", file=sys.stderr)
                return 2
            as_optax()
            sys.argv = [program, *arguments]
            if not sys.flags.safe_path:  # as `python program.py` does
                sys.path[0] = str(Path(program).resolve().parent)
            runpy.run_path(program, run_name="__main__")
        case ["-h" | "--help"]:
            print(USAGE)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    return 0
