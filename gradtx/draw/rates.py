"""Figures of learning rates side by side: too small, good, too large."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from gradtx.draw.descending import GRID, check_steps, descend, draw_surface_above
from gradtx.draw.panels import draw_path
from gradtx.draw.plane import as_problem, on_grid
from gradtx.draw.style import finish, line_styles, new_figure
from gradtx.engine.base import Array, GradientTransformation
from gradtx.problems import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_rates(
    problem: Problem | Callable[[Array], Array],
    tx_of_rate: Callable[[float], GradientTransformation],
    rates: Sequence[float] | Mapping[str, float],
    *,
    start: ArrayLike | None = None,
    steps: int = 50,
    window: ArrayLike | None = None,
    title: str = "",
) -> "Figure":
    r"""Draws the paths of an optimizer with several learning rates, and the losses by step.

    Each rate has a panel with the contours and its path, which is cut off where it leaves the
    window. The panel below has all losses, relative to the function's minimum, or to the minimum on
    the grid if the former is not known.

    Args:
      problem: a `gradtx.problems.Problem` in the plane, or any JAX function of a 2-vector.
      tx_of_rate: a function from a learning rate to an optimizer, such as `gradtx.sgd`.
      rates: the rates, or a mapping from names to rates, such as `{"too small": 0.01}`.
      start: the start, two numbers. Default: the problem's start.
      steps: the number of steps. Default: 50.
      window: the part of the plane to show, `((low, high), (low, high))`. Default: the problem's
        window.
      title: the title. Default: the problem's name.

    Returns:
      A matplotlib figure, made without pyplot.

    Raises:
      TypeError: `problem` is not a function.
      ValueError: `rates` is empty or has a rate that is not positive, `steps` is below 1, or
        `start` or `window` is missing or invalid.
      TrainingError: matplotlib is not installed.

    Example:
      >>> import gradtx
      >>> booth = gradtx.problems.booth  # rates below 2 / 18 are stable
      >>> figure = gradtx.draw.learning_rates(booth, gradtx.sgd, [0.005, 0.1, 0.12], steps=20)
      >>> [axes.get_title().split("\n")[1] for axes in figure.axes[:3]]
      ['ends at 23', 'ends at 0.014', 'leaves the window at step 11']
    """
    problem, window, least = as_problem("learning_rates", problem, start, window)
    check_steps("learning_rates", steps)
    named = rates if isinstance(rates, Mapping) else {f"rate {rate:g}": rate for rate in rates}
    _check(named)
    surface = on_grid("learning_rates", problem.fun, window, GRID, least)
    labels = {
        name: name if name == f"rate {rate:g}" else f"{name}: {rate:g}"
        for name, rate in named.items()
    }
    styles = line_styles(named)

    paths = {
        name: descend(problem.fun, problem.start, tx_of_rate(rate), steps)
        for name, rate in named.items()
    }

    figure = new_figure(2.4 * max(len(named), 3), 5.2)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.2, 2.4])[:, 0]
    panels = above.subplots(1, len(named), sharex=True, sharey=True, squeeze=False)[0]
    losses = below.subplots()
    for axes, (name, path) in zip(panels, paths.items(), strict=True):
        draw_surface_above(axes, surface, problem)
        draw_path(axes, surface, path.visible(window), styles[name])
        axes.set_title(f"{labels[name]}\n{path.story(window, 'ends at {:.2g}')}", fontsize=9)
        axes.locator_params(nbins=5)
        axes.label_outer()
        label = labels[name] + " (diverges)" * path.diverged
        look = {**styles[name], "label": label, "markersize": 4 if steps <= 60 else 0}
        above_least = path.values - surface.least
        losses.plot(np.where(above_least > 0, above_least, np.nan), **look, linewidth=1.5)
    first = next(iter(paths.values())).values[0] - surface.least
    losses.set_yscale("log")
    if first > 0:  # diverging losses are cut off
        losses.set_ylim(top=min(losses.get_ylim()[1], 100 * first))
    losses.set_xlim(0, steps)
    losses.set_xlabel("step")
    counted = "value" if surface.least == 0 else "value - least"
    losses.set_ylabel(f"{counted} (log scale)")
    finish(losses)
    below.legend(
        *losses.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9
    )
    figure.suptitle(title or problem.name, fontsize=11)
    return figure


def _check(rates: Mapping[str, float]) -> None:
    if not rates:
        raise ValueError("learning_rates: rates must not be empty")
    for rate in rates.values():
        if not 0 < rate < np.inf:
            raise ValueError(f"learning_rates: rates must be positive and finite, got {rate}")
