"""The display of a race: a bar on a terminal, a line for each optimizer elsewhere."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from gradtx.train.errors import extra


class Display(Protocol):
    """The interface of a display.

    Attributes:
      live: whether `step` should be called after every epoch.
    """

    live: bool

    def say(self, text: str) -> None:
        """Shows a line."""

    def step(self, name: str, doing: str, done: float = 0) -> None:
        """Shows what an optimizer is doing, and advances the bar by `done` epochs of a seed."""

    def more(self, epochs: int) -> None:
        """Adds epochs of a seed to those that are to be done."""


@contextmanager
def display(epochs: int, lines: bool) -> Iterator[Display]:
    """Opens a display on standard output.

    Args:
      epochs: the total number of epochs, of all seeds of all optimizers.
      lines: whether to print lines if standard output is not a terminal.
    """
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if terminal and importlib.util.find_spec("rich"):
        shown = _Terminal(epochs)
        with shown.bar:
            yield shown
    else:
        yield _Plain(lines)


class _Plain:
    live = False

    def __init__(self, lines: bool) -> None:
        self.lines = lines

    def say(self, text: str) -> None:
        if self.lines:
            print(text, flush=True)

    def step(self, name: str, doing: str, done: float = 0) -> None:
        pass

    def more(self, epochs: int) -> None:
        pass


class _Terminal:
    live = True

    def __init__(self, epochs: int) -> None:
        progress = extra("rich.progress", "for the progress bar")
        self.bar: Any = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.fields[doing]}"),
            progress.TimeElapsedColumn(),
            expand=True,
            transient=True,
        )
        self.task = self.bar.add_task("race", total=epochs, doing="")

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, name: str, doing: str, done: float = 0) -> None:
        self.bar.update(self.task, description=name, doing=doing, advance=done)

    def more(self, epochs: int) -> None:
        self.bar.update(self.task, total=self.bar.tasks[0].total + epochs)
