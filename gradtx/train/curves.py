"""A figure of a run: loss, accuracy and learning rate by epoch."""

import io
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradtx.train.errors import extra
from gradtx.train.loop import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAIN, _TEST, _RATE = "#1f5fa8", "#d1661c", "#4d4d4d"


def draw_curves(history: Sequence[Row], title: str) -> "Figure":
    """Draws the loss, accuracy and learning rate of a run by epoch.

    Args:
      history: the measurements after each epoch, at least one row.
      title: the title.

    Returns:
      A matplotlib figure, made without pyplot.

    Raises:
      TrainingError: matplotlib is not installed.

    Example:
      >>> from gradtx.train import Row, draw_curves
      >>> row = Row(1, 23, 0.5, 0.9, 0.6, 0.8, learning_rate=0.01, seconds=1.0)
      >>> len(draw_curves([row], "a run").axes)
      3
    """
    figure_class = extra("matplotlib.figure", "to draw the curves").Figure
    ticker = extra("matplotlib.ticker", "to draw the curves")
    figure = figure_class(figsize=(7, 8), dpi=150, layout="constrained")
    losses, accuracies, rates = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    epochs = [row.epoch for row in history]
    marks = {"marker": "o", "markersize": 3} if len(epochs) <= 40 else {}

    for part, colour in (("train", _TRAIN), ("test", _TEST)):
        style = {"color": colour, "label": part, "linewidth": 1.5, **marks}
        losses.plot(epochs, [getattr(row, f"{part}_loss") for row in history], **style)
        accuracy = [100 * getattr(row, f"{part}_accuracy") for row in history]
        accuracies.plot(epochs, accuracy, **style)
    losses.set_ylabel("loss")
    if any(max(row.train_loss, row.test_loss) > 0 for row in history):
        losses.set_yscale("log")
        losses.yaxis.set_major_formatter("{x:g}")
        losses.yaxis.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(1.5, 0.4)))
        losses.set_ylabel("loss (log scale)")
    losses.legend()
    accuracies.set_ylabel("accuracy (%)")
    # The final accuracies must be legible: the steep beginning may be cut off below.
    middle = 100 * statistics.median(row.test_accuracy for row in history)
    lowest, highest = accuracies.get_ylim()
    accuracies.set_ylim(max(lowest, middle - 5 * (100.5 - middle)), min(highest, 100.5))
    best = max(history, key=lambda row: row.test_accuracy)
    accuracies.axhline(100 * best.test_accuracy, color=_TEST, linewidth=0.8, linestyle=":")
    accuracies.legend(
        title=f"best test: {best.test_accuracy:.2%}, epoch {best.epoch}", loc="lower right"
    )

    known = [(row.epoch, row.learning_rate) for row in history if row.learning_rate is not None]
    if known:
        rates.plot(*zip(*known, strict=True), color=_RATE, linewidth=1.5, **marks)
        rates.set_ylim(0, 1.1 * max(rate for _, rate in known) or 1)
    else:
        rates.text(
            0.5,
            0.5,
            "not available from this optimizer's state",
            transform=rates.transAxes,
            ha="center",
        )
        rates.set_yticks([])
    rates.set_ylabel("learning rate\n(last step of epoch)")
    rates.set_xlabel("epoch")
    rates.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    rates.set_xlim(0.5, epochs[-1] + 0.5)
    for axes in (losses, accuracies, rates):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    return figure


def curves_png(history: Sequence[Row], title: str) -> bytes:
    """Draws the curves of a run, and returns them as the content of a PNG file.

    Args:
      history: the measurements after each epoch, at least one row.
      title: the title.

    Example:
      >>> from gradtx.train import Row, curves_png
      >>> row = Row(1, 23, 0.5, 0.9, 0.6, 0.8, learning_rate=0.01, seconds=1.0)
      >>> curves_png([row], "a run")[1:4]
      b'PNG'
    """
    buffer = io.BytesIO()
    draw_curves(history, title).savefig(buffer, format="png")
    return buffer.getvalue()
