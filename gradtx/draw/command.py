"""The command `gradtx draw`, which writes the figures of the gallery to files."""

import argparse
import sys
from pathlib import Path

from gradtx._arguments import near
from gradtx.draw.gallery import GALLERY
from gradtx.draw.style import png
from gradtx.train.errors import TrainingError, extra
from gradtx.train.files import write_atomically

DESCRIPTION = "Draw what optimizers, learning rates, batches and schedules do."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `gradtx draw` to a parser.

    Args:
      parser: the parser.
    """
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"figures to draw: {', '.join(GALLERY)} (default: all)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="pictures",
        help="the folder for NAME.png (default: pictures)",
    )


def run(args: argparse.Namespace) -> int:
    """Draws according to the parsed arguments; errors become one message and an exit code.

    Args:
      args: the arguments, from a parser with `add_arguments`.

    Returns:
      0, or 1 if a figure could not be written, 2 if the arguments are invalid, 130 after Ctrl-C.
    """
    try:
        _draw(list(dict.fromkeys(args.names)) or list(GALLERY), Path(args.out))
    except TrainingError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted; the files named above are written", 130)
    except BrokenPipeError:
        raise  # handled in `main`
    except OSError as error:
        return _fail(str(error), 1)
    return 0


def _draw(names: list[str], out: Path) -> None:
    for name in names:
        if name not in GALLERY:
            similar = near(name, GALLERY)
            others = f"the figures are {', '.join(GALLERY)}"
            hint = f"did you mean {similar[0]!r}?" if similar else others
            raise TrainingError(f"no figure is named {name!r}; {hint}")
    extra("matplotlib.figure", "to draw")  # before anything is computed
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{out}: cannot create the folder: {error.strerror}") from None
    for name in names:
        path = out / f"{name}.png"
        write_atomically(path, png(GALLERY[name](), colours=256))
        print(f"wrote {path}", flush=True)


def _fail(message: str, code: int) -> int:
    print(f"gradtx draw: {message}", file=sys.stderr)
    return code
