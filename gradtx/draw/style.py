"""What all pictures share: colours, figures, axes, files."""

import io
import itertools
from collections.abc import Iterable
from typing import Any

from gradtx.train.errors import extra

# Okabe and Ito's colours, which people with any colour vision can tell apart; without yellow, which
# is too pale for lines. Beyond them, the dashes differ too, and the markers always do.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X<>"
GREY = "#4d4d4d"
"""For what stands beside the data: targets, marks, notes."""


def new_figure(width: float, height: float, *, dpi: int = 110) -> Any:
    """Makes an empty figure without pyplot, so that no window and no global state is involved.

    Args:
      width: in inches.
      height: in inches.
      dpi: pixels in an inch. Default: 110.

    Raises:
      TrainingError: matplotlib is not installed.

    Example:
      >>> from gradtx.draw.style import new_figure
      >>> new_figure(4, 3).axes
      []
    """
    figure_class = extra("matplotlib.figure", "to draw").Figure
    return figure_class(figsize=(width, height), dpi=dpi, layout="constrained")


def line_styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Gives each label its look, which goes by its place.

    Args:
      labels: what is to be told apart.

    Returns:
      Arguments of matplotlib's `plot`, by label: `color`, `linestyle`, `marker`.

    Example:
      >>> from gradtx.draw.style import line_styles
      >>> line_styles(["sgd", "adam"])["adam"]
      {'color': '#D55E00', 'linestyle': '-', 'marker': 's'}
    """
    looks = itertools.cycle(itertools.product(DASHES, COLOURS))
    return {
        label: {"color": colour, "linestyle": dash, "marker": MARKERS[i % len(MARKERS)]}
        for i, (label, (dash, colour)) in enumerate(zip(labels, looks, strict=False))
    }


def finish(*panels: Any) -> None:
    """Gives axes a pale grid, and takes the frame's upper and right side away.

    Args:
      *panels: matplotlib axes.
    """
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)


def png(figure: Any, colours: int | None = None) -> bytes:
    """Gives a figure as the content of a PNG file.

    Args:
      figure: a matplotlib figure.
      colours: how many colours the file may have, at most 256; it is then less than half as large,
        and pictures of lines and flat colours look the same. Default: all that there are.

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
        # The usual method drops colours that are rare, which those of marks are.
        few = whole.quantize(colours, method=images.Quantize.MAXCOVERAGE, kmeans=5)
        buffer = io.BytesIO()
        few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
