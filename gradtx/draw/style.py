"""The common style of all figures: colours, lines, axes, files."""

import io
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax

from gradtx.engine.base import OptState
from gradtx.state import roles
from gradtx.train.errors import extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which can be distinguished with any colour vision; without yellow, which
# is too pale for lines. Neighbours differ in dashes and markers too, as on paper without colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X<>"
GREY = "#4d4d4d"
"""The colour of targets, marks and notes."""


def new_figure(width: float, height: float, *, dpi: int = 110) -> "Figure":
    """Returns an empty figure, made without pyplot and therefore without global state.

    Args:
      width: the width in inches.
      height: the height in inches.
      dpi: the resolution in pixels per inch. Default: 110.

    Raises:
      TrainingError: matplotlib is not installed.

    Example:
      >>> from gradtx.draw.style import new_figure
      >>> new_figure(4, 3).axes
      []
    """
    figure_class = extra("matplotlib.figure", "to draw").Figure
    return figure_class(figsize=(width, height), dpi=dpi, layout="constrained")


def line_styles(labels: Iterable[str]) -> dict[str, dict[str, str]]:
    """Returns a line style for each label, by its position.

    Args:
      labels: the labels.

    Returns:
      Keyword arguments of matplotlib's `plot`, by label: `color`, `linestyle`, `marker`.

    Example:
      >>> from gradtx.draw.style import line_styles
      >>> line_styles(["sgd", "adam"])["adam"]
      {'color': '#D55E00', 'linestyle': '--', 'marker': 's'}
    """
    looks = zip(*map(itertools.cycle, (COLOURS, DASHES, MARKERS)), strict=False)
    return {
        label: {"color": colour, "linestyle": dash, "marker": marker}
        for label, (colour, dash, marker) in zip(labels, looks, strict=False)
    }


def with_rate(label: str, state: OptState) -> str:
    """Adds the learning rate of an optimizer's first step to its name.

    It is not added if there is none or several, or if a line search chooses the rate.

    Args:
      label: the name.
      state: the state before the first step.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.draw.style import with_rate
      >>> with_rate("momentum", gradtx.momentum(0.1).init(jnp.zeros(2)))
      'momentum, rate 0.1'
    """
    rates = [
        (role.kind, leaf)
        for role, leaf in zip(*map(jax.tree.leaves, (roles(state), state)), strict=True)
        if role.name.endswith("/learning_rate")
    ]
    if [kind for kind, _ in rates] != ["rate"]:
        return label
    return f"{label}, rate {float(rates[0][1]):.3g}"


def finish(*panels: "Axes") -> None:
    """Adds a pale grid to axes, hides their upper and right spines, and writes ticks as numbers.

    Args:
      *panels: matplotlib axes, with their scales and limits.
    """
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        _plain_ticks(axes.xaxis, axes.get_xlim())
        _plain_ticks(axes.yaxis, axes.get_ylim())


def _plain_ticks(axis: "Axis", limits: tuple[float, float]) -> None:
    """Writes 6 and not 6 x 10^0 beside the ticks of a short logarithmic axis."""
    if axis.get_scale() == "log" and max(limits) < 10**1.5 * min(limits):
        ticker = extra("matplotlib.ticker", "to draw")
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(1.5, 0.4)))


def png(figure: "Figure", colours: int | None = None) -> bytes:
    """Returns a figure as the content of a PNG file.

    Args:
      figure: a matplotlib figure.
      colours: the number of colours, at most 256, to which the file is reduced; it is then less
        than half as large, and figures of lines and flat colours look the same. Default: all
        colours.

    Example:
      >>> from gradtx.draw.style import new_figure, png
      >>> png(new_figure(1, 1))[1:4]
      b'PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    if colours is not None:
        images = extra("PIL.Image", "to draw")  # matplotlib needs it too
        whole = images.open(buffer).convert("RGB")
        # The default method drops rare colours, such as those of marks.
        few = whole.quantize(colours, method=images.Quantize.MAXCOVERAGE, kmeans=5)
        buffer = io.BytesIO()
        few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
