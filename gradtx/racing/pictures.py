"""The figures of a race: loss by step, and final loss by learning rate."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtx.draw.style import GREY, finish, line_styles, new_figure
from gradtx.racing.results import Results, Row, Standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(race: Results) -> "Figure":
    """Draws the loss by step, and below it the accuracy if it was measured.

    Args:
      race: the results.

    Returns:
      A matplotlib figure, made without pyplot.

    Raises:
      TrainingError: matplotlib is not installed.
    """
    standings = race.standings()
    scored = any(s.accuracy is not None for s in standings)
    figure = _figure(len(standings), 7.0 if scored else 4.5)
    panels = figure.subplots(2 if scored else 1, 1, sharex=True, squeeze=False)[:, 0]
    for s, style in _styled(race, standings):
        rows = race.runs_of(s.optimizer, s.learning_rate)
        label = f"{s.optimizer}, {s.learning_rate:.3g}" + " (diverged)" * math.isinf(s.loss)
        losses = np.array([row.loss for row in rows])
        _band(panels[0], rows[0].steps, losses, {**style, "label": label}, len(standings))
        if s.accuracy is not None:
            scores = np.array([row.accuracy for row in rows])
            _band(panels[1], rows[0].steps, 100 * scores, style, len(standings))

    shown = [row for s in standings for row in race.runs_of(s.optimizer, s.learning_rate)]
    _loss_axis(panels[0], (loss for row in shown for loss in row.loss), shown)
    panels[0].set_ylabel(_loss_label(panels[0], "loss", race.unit))
    if scored:
        # The final accuracies must be legible; the steep beginning may be cut off.
        best = sorted(100 * s.accuracy for s in standings if s.accuracy is not None)
        middle = best[len(best) // 2]
        lowest, highest = panels[1].get_ylim()
        panels[1].set_ylim(max(lowest, middle - 4 * (100.5 - middle)), min(highest, 100.5))
        panels[1].set_ylabel("accuracy (%)")
    level = None if race.target is None else (100 if scored else 1) * race.target
    lowest, highest = panels[-1].get_ylim()
    if level is not None and lowest < level < highest:
        panels[-1].axhline(level, color=GREY, linewidth=1, linestyle=(0, (6, 3)))
        panels[-1].annotate(
            f"target {level:g}",
            (1.01, level),  # beside the curves, which it must not hide
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    panels[-1].set_xlabel("step")
    panels[-1].set_xlim(0, 1.01 * max(row.steps[-1] for row in shown))
    _finish(panels, race, f"{_seeds(race)}; each optimizer with its best rate")
    figure.legend(
        *panels[0].get_legend_handles_labels(), **_LEGEND, title="optimizer, rate", alignment="left"
    )
    return figure


def draw_rates(race: Results) -> "Figure":
    """Draws the final loss by learning rate.

    Args:
      race: the results.

    Returns:
      A matplotlib figure, made without pyplot.

    Raises:
      TrainingError: matplotlib is not installed.
    """
    standings = race.standings()
    figure = _figure(len(standings), 4.8)
    finals = {
        s.optimizer: np.array(
            [[r.loss[-1] for r in race.runs_of(s.optimizer, x)] for x in race.rates_of(s.optimizer)]
        ).T
        for s in standings
    }
    limit, strip = _highest(race.rows), None
    lost = [s for s in standings if (np.median(finals[s.optimizer], 0) > limit).any()]
    if lost:
        # A strip with one row per optimizer, because marks at one height would hide each other.
        strip, axes = figure.subplots(
            2, 1, sharex=True, height_ratios=[0.05 * len(lost), 1], gridspec_kw={"hspace": 0}
        )
    else:
        axes = figure.subplots()
    _loss_axis(axes, (row.loss[-1] for row in race.rows), race.rows)
    for s, style in _styled(race, standings):
        rates, final = race.rates_of(s.optimizer), finals[s.optimizer]
        label = f"{s.optimizer}{' (unfinished)' if s.at_edge else ''}"
        _band(axes, rates, final, {**style, "label": label}, len(standings))
        axes.plot(
            s.learning_rate, s.loss, marker=_BEST[s.at_edge], markersize=12, markerfacecolor="none",
            markeredgecolor=style["color"], markeredgewidth=1.5,
        )  # fmt: skip
        if strip is not None and s in lost:
            there = [x for x, y in zip(rates, np.median(final, 0), strict=True) if y > limit]
            mark = {**style, "linestyle": "", "markersize": 5}
            strip.plot(there, [-lost.index(s)] * len(there), **mark)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate (log scale)")
    axes.set_ylabel(_loss_label(axes, "final loss", race.unit))
    subtitle = f"{_seeds(race)}; ring: the best rate"
    if any(s.at_edge for s in standings):
        subtitle += "\ntriangle: the best so far, at an edge of the rates, so unfinished"
    if strip is None:
        _finish([axes], race, subtitle)
    else:
        _finish([strip, axes], race, subtitle)
        strip.set_ylim(0.7 - len(lost), 0.7)
        strip.set_yticks([(1 - len(lost)) / 2], ["diverged or\nbeyond"], fontsize=8)
        strip.tick_params(which="both", length=0)
        strip.spines["bottom"].set_visible(False)
        strip.grid(False, axis="y")
        strip.set_facecolor("#f2f2f2")
    figure.legend(*axes.get_legend_handles_labels(), **_LEGEND)
    return figure


_BEST = {"": "o", "low": "<", "high": ">"}
"""The marks of the best rate, within the grid and at its edges."""

_LEGEND: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "fontsize": 9}


def _figure(entries: int, height: float) -> "Figure":
    return new_figure(8.5, max(height, 0.24 * entries), dpi=150)


def _styled(
    race: Results, standings: Sequence[Standing]
) -> Iterable[tuple[Standing, dict[str, Any]]]:
    """Returns the standings with their line styles, by the order of optimizers in the race.

    So an optimizer has the same style in all figures.
    """
    styles = line_styles(race.optimizers)
    return [(s, styles[s.optimizer]) for s in standings]


def _band(
    axes: "Axes", x: Sequence[float], ys: np.ndarray, style: dict[str, Any], entries: int
) -> None:
    """Draws the median over the first axis in a band from the lowest to the highest.

    The bands of many entries are paler.
    """
    middle = np.median(ys, 0)
    size = {"markersize": 4 if len(x) <= 40 else 0, "linewidth": 1.5}
    axes.plot(x, np.where(np.isfinite(middle), middle, np.nan), **style, **size)
    low, high = ys.min(0), ys.max(0)
    high = np.where(np.isfinite(high), high, 1e300)  # matplotlib cannot fill up to infinity
    alpha = min(0.15, 1 / entries)
    axes.fill_between(
        x, low, high, where=np.isfinite(low), color=style["color"], alpha=alpha, linewidth=0
    )


def _loss_axis(axes: "Axes", shown: Iterable[float], rows: Sequence[Row]) -> None:
    """Sets the scale and the limits; exploding losses are cut off above."""
    losses = [loss for loss in shown if math.isfinite(loss)]
    positive = [loss for loss in losses if loss > 0]
    lowest, limit = min(losses, default=1.0), _highest(rows)
    if lowest < 0:
        highest = min(max(losses), limit)
        margin = 0.05 * (highest - lowest) or 1.0
        axes.set_ylim(lowest - margin, highest + margin)
        return
    highest = min(max(positive, default=1.0), limit)
    if lowest > 0:
        axes.set_yscale("log")
        axes.set_ylim(lowest / 1.5, highest * 1.5)
    else:  # a loss may be 0, which has no logarithm
        smallest = min(positive, default=1.0)
        axes.set_yscale("symlog", linthresh=smallest)
        axes.set_ylim(-smallest / 2, highest * 1.5)


def _highest(rows: Sequence[Row]) -> float:
    """The largest loss that the figures show."""
    first = [row.loss[0] for row in rows if math.isfinite(row.loss[0])]
    finite = [loss for row in rows for loss in row.loss if math.isfinite(loss)]
    if not first or min(finite) < 0:  # ten times the first loss needs losses of at least 0
        spread = max(first, default=1.0) - min(finite, default=0.0)
        return max(first, default=1.0) + spread
    return 10 * max(first)


def _loss_label(axes: "Axes", what: str, unit: str) -> str:
    scale = "" if axes.get_yscale() == "linear" else "log scale"
    notes = ", ".join(note for note in (unit, scale) if note)
    return f"{what} ({notes})" if notes else what


def _seeds(race: Results) -> str:
    seeds = len({row.seed for row in race.rows})
    return f"median of {seeds} seeds, band: lowest to highest" if seeds > 1 else "one seed"


def _finish(panels: Sequence["Axes"] | np.ndarray, race: Results, subtitle: str) -> None:
    finish(*panels)
    title = f"{race.title}\n{subtitle}" if race.title else subtitle
    panels[0].set_title(title, fontsize=10, loc="left")
