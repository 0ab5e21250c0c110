"""The display of a run: a progress bar on a terminal, plain lines elsewhere.

Without the package rich, plain lines are used on terminals too.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from gradtx._table import text_table
from gradtx.train.errors import extra
from gradtx.train.loop import Row


class Display(Protocol):
    """The interface of a display."""

    def say(self, text: str) -> None:
        """Shows a line."""

    def epoch(self, row: Row) -> None:
        """Shows the measurements after an epoch."""

    def table(self, title: str, rows: Sequence[Sequence[str]], note: str) -> None:
        """Shows a table, whose first row is the header, and a note below it."""


@contextmanager
def display(epochs: int, done: int, console: Any = None) -> Iterator[Display]:
    """Opens a display on standard output: plain lines unless it is a terminal.

    Args:
      epochs: the total number of epochs.
      done: the number of epochs that are done.
      console: a console of the package rich, which is then the terminal. Default: standard output.
    """
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if console or (terminal and importlib.util.find_spec("rich")):
        shown = _Terminal(epochs, done, console)
        with shown.bar:
            yield shown
    else:
        yield _Plain(epochs)


def loss_text(loss: float) -> str:
    """Formats a loss with four decimals, or with an exponent if it is below 0.01 or above 9999."""
    return f"{loss:.4f}" if 0.01 <= loss < 9999 else f"{loss:.2e}"


def rate_text(rate: float | None) -> str:
    """Formats a learning rate; `None` becomes a dash."""
    return "-" if rate is None else f"{rate:.4g}"


def measured(row: Row, width: int) -> str:
    """Formats the measurements after an epoch in at most `width` characters, if that is possible.

    Args:
      row: the measurements.
      width: the number of characters. Those that matter least are left out: the learning rate, then
        the accuracy on the training examples.

    Example:
      >>> from gradtx.train import Row
      >>> from gradtx.train.report import measured
      >>> row = Row(3, 69, 0.25, 0.93, 0.5, 0.9, 0.001, 0.1)
      >>> measured(row, 80)
      'loss 0.2500  train 93.00%  test 90.00%  rate 0.001'
      >>> measured(row, 30)
      'loss 0.2500  test 90.00%'
    """
    loss, test = f"loss {loss_text(row.train_loss)}", f"test {row.test_accuracy:.2%}"
    train, rate = f"train {row.train_accuracy:.2%}", f"rate {rate_text(row.learning_rate)}"
    texts = ["  ".join(parts) for parts in ((loss, train, test, rate), (loss, train, test))]
    return next((text for text in texts if len(text) <= width), f"{loss}  {test}")


class _Plain:
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def say(self, text: str) -> None:
        print(text, flush=True)

    def epoch(self, row: Row) -> None:
        print(
            f"epoch {row.epoch:{len(str(self.epochs))}}/{self.epochs}  "
            f"train {loss_text(row.train_loss)} {row.train_accuracy:7.2%}  "
            f"test {loss_text(row.test_loss)} {row.test_accuracy:7.2%}  "
            f"rate {rate_text(row.learning_rate)}  {row.seconds:.2f} s",
            flush=True,
        )

    def table(self, title: str, rows: Sequence[Sequence[str]], note: str) -> None:
        head, *body = rows
        print(f"\n{title}\n\n{text_table(head, body, ' rrr')}\n\n{note}", flush=True)


class _Terminal:
    def __init__(self, epochs: int, done: int, console: Any) -> None:
        self.epochs = epochs
        progress = extra("rich.progress", "for the progress bar")
        self.bar = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("epoch {task.completed}/{task.total}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.fields[measured]}"),
            progress.TimeElapsedColumn(),
            expand=True,
            console=console,
        )
        # The first epoch compiles; until it ends there are no measurements to show.
        self.task = self.bar.add_task("train", total=epochs, completed=done, measured="compiling")

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def epoch(self, row: Row) -> None:
        beside = f"* epoch {self.epochs}/{self.epochs} ----------  0:00:00"  # with a short bar
        text = measured(row, self.bar.console.width - len(beside))
        self.bar.update(self.task, completed=row.epoch, measured=text)

    def table(self, title: str, rows: Sequence[Sequence[str]], note: str) -> None:
        self.bar.stop()
        table: Any = extra("rich.table", "for the summary").Table(
            title=extra("rich.text", "for the summary").Text(title), title_justify="left"
        )
        for heading in rows[0]:
            table.add_column(heading, justify="right" if heading else "left")
        for row in rows[1:]:
            table.add_row(*row)
        self.bar.console.print(table)
        self.say(note)


def durations(history: Sequence[Row], resumed: int, elapsed: float) -> str:
    """Returns how long a run took, in words; of a resumed run, also the epochs before.

    Args:
      history: the measurements after each epoch.
      resumed: the number of epochs that were trained before the run was resumed.
      elapsed: the seconds since then, with loading and drawing.
    """

    def seconds(rows: Sequence[Row]) -> str:
        return f"{sum(row.seconds for row in rows):.1f} s of training"

    text = f"{seconds(history[resumed:])}, {elapsed:.1f} s in all"
    return f"since epoch {resumed}: {text}; all epochs: {seconds(history)}" if resumed else text


def summary(history: Sequence[Row]) -> list[list[str]]:
    """Returns the table at the end of a run: final and best measurements.

    Args:
      history: the measurements after each epoch, at least one row.

    Returns:
      The rows of the table, the header first.
    """
    rows = [["", "final", "best", "at epoch"]]
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        is_loss = name.endswith("loss")
        best = (min if is_loss else max)(history, key=lambda row, name=name: getattr(row, name))
        values = [getattr(row, name) for row in (history[-1], best)]
        cells = [loss_text(v) if is_loss else f"{v:.2%}" for v in values]
        rows.append([name.replace("_", " "), *cells, str(best.epoch)])
    return rows
