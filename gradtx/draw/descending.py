"""Figures of the paths of optimizers on a surface over the plane."""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from gradtx._arguments import counted
from gradtx._minimizing import Stop, minimize
from gradtx.draw.panels import draw_contours, draw_marks, draw_path, draw_view, end_sizes
from gradtx.draw.plane import Surface, Window, as_problem, on_grid, outside
from gradtx.draw.style import line_styles, new_figure, with_rate
from gradtx.engine.base import Array, GradientTransformation
from gradtx.problems import Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = 161
"""The number of points along each axis of the grids that surfaces are drawn from."""


class Descent(NamedTuple):
    """The path of an optimizer.

    Attributes:
      points: the points, `[steps + 1, 2]`; the first is the start.
      values: the function's values at the points, `[steps + 1]`.
      diverged: whether it stopped because the next value was not finite.
    """

    points: np.ndarray
    values: np.ndarray
    diverged: bool

    def visible(self, window: Window) -> np.ndarray:
        """Returns the points up to the step that leaves the window for the last time.

        Args:
          window: the part of the plane that is shown.
        """
        away = outside(self.points, window)
        return self.points[: _last_exit(away) + 1] if away[-1] else self.points

    def story(self, window: Window, ends: str = "{:.2g}") -> str:
        """Returns the outcome in a few words: the last value, or that the path left the window.

        Args:
          window: the part of the plane that is shown.
          ends: the format of the last value. Default: two significant digits.
        """
        away = outside(self.points, window)
        if self.diverged:
            return "diverges"
        if away[-1]:
            return f"leaves the window at step {_last_exit(away)}"
        ends = ends.format(self.values[-1])
        return f"{ends} (outside in {counted(int(away.sum()), 'step')})" if away.any() else ends


def _last_exit(away: np.ndarray) -> int:
    """Returns the first step after which the path stays outside."""
    inside = np.flatnonzero(~away)
    return int(inside[-1]) + 1 if inside.size else 0


def descend(
    fun: Callable[[Array], Array], start: ArrayLike, tx: GradientTransformation, steps: int
) -> Descent:
    """Runs an optimizer on a function, and returns its path.

    Args:
      fun: the function of a 2-vector.
      start: the start, two numbers.
      tx: the optimizer.
      steps: the number of steps. The optimizer stops earlier where the gradient is exactly 0 or the
        next value is not finite; the last point is then repeated.

    Example:
      >>> import gradtx
      >>> from gradtx.draw.descending import descend
      >>> path = descend(lambda x: x @ x, (1.0, 2.0), gradtx.sgd(0.25), 2)
      >>> path.points.tolist(), path.values.tolist()
      ([[1.0, 2.0], [0.5, 1.0], [0.25, 0.5]], [5.0, 1.25, 0.3125])
    """
    x0 = jnp.asarray(start, float)
    found = minimize(fun, x0, tx, max_steps=steps, tol=0.0, value_tol=0.0, trajectory=True)
    assert found.trajectory is not None  # it was requested
    points, values = (np.asarray(a, np.float64) for a in found.trajectory[:2])
    return Descent(points, values, int(found.stop) == Stop.NOT_FINITE)


def descent(
    problem: Problem | Callable[[Array], Array],
    optimizers: Mapping[str, GradientTransformation],
    *,
    start: ArrayLike | None = None,
    steps: int = 100,
    window: ArrayLike | None = None,
    title: str = "",
) -> "Figure":
    """Draws the paths of several optimizers on a surface, from above and from the side.

    Contours are geometrically spaced above the minimum value. The start is a ring, known minima are
    crosses, and the end of each path has a mark, and so has each step if there are at most 60. The
    legend shows the learning rates and the last values. A path is cut off where it leaves the
    window, and the legend says so.

    Args:
      problem: a `gradtx.problems.Problem` in the plane, or any JAX function of a 2-vector.
      optimizers: the optimizers, by their names in the figure.
      start: the start, two numbers. Default: the problem's start.
      steps: the number of steps. Default: 100.
      window: the part of the plane to show, `((low, high), (low, high))`. Default: the problem's
        window.
      title: the title. Default: the problem's name.

    Returns:
      A matplotlib figure, made without pyplot; `figure.savefig("descent.png")` writes it.

    Raises:
      TypeError: `problem` is not a function, or an optimizer is not a transformation.
      ValueError: `optimizers` is empty, `steps` is below 1, or `start` or `window` is missing or
        invalid.
      TrainingError: matplotlib is not installed.

    Example:
      >>> import gradtx
      >>> figure = gradtx.draw.descent(
      ...     gradtx.problems.booth, {"sgd": gradtx.sgd(0.05), "adam": gradtx.adam(0.5)}, steps=30
      ... )
      >>> [text.get_text() for text in figure.legends[0].get_texts()]
      ['start', 'minimum', 'sgd, rate 0.05: 0.058', 'adam, rate 0.5: 0.5']
    """
    problem, window, least = as_problem("descent", problem, start, window)
    check_steps("descent", steps)
    if not isinstance(optimizers, Mapping) or not optimizers:
        raise ValueError(
            'descent: optimizers must be a non-empty mapping such as {"sgd": gradtx.sgd(0.1)}, '
            f"got {optimizers!r}"
        )
    for label, tx in optimizers.items():
        if not (hasattr(tx, "init") and hasattr(tx, "update")):
            raise TypeError(
                f"descent: optimizers[{label!r}] must be a transformation, such as "
                f"gradtx.adam(0.1), got {tx!r}"
            )
    paths = {k: descend(problem.fun, problem.start, tx, steps) for k, tx in optimizers.items()}
    surface = on_grid("descent", problem.fun, window, GRID, least)
    styles = line_styles(paths)

    visible = [path.visible(window) for path in paths.values()]
    ends = end_sizes(np.array([points[-1] for points in visible]), window)
    lines = list(zip(visible, styles.values(), ends, strict=True))

    figure = new_figure(9.6, 5.0)
    flat = figure.add_subplot(1, 2, 1)
    draw_surface_above(flat, surface, problem)
    for (label, path), (points, style, end) in zip(paths.items(), lines, strict=True):
        name = with_rate(label, optimizers[label].init(jnp.asarray(problem.start, float)))
        look = {**style, "label": f"{name}: {path.story(window)}"}
        draw_path(flat, surface, points, look, end)
    view = figure.add_subplot(1, 2, 2, projection="3d")
    draw_view(view, surface, lines, ("x[0]", "x[1]", "value"))
    figure.suptitle(title or problem.name, fontsize=11)
    figure.legend(
        *flat.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=9,
        ncols=4, title=f"value after {counted(steps, 'step')}", title_fontsize=9,
    )  # fmt: skip
    return figure


def draw_surface_above(axes: "Axes", surface: Surface, problem: Problem) -> None:
    """Draws a problem from above, with its start, its minima and its saddle points.

    Args:
      axes: matplotlib axes.
      surface: the problem's values.
      problem: the problem.
    """
    draw_contours(axes, surface)
    draw_marks(axes, problem, surface)
    axes.set_xlabel("x[0]")
    axes.set_ylabel("x[1]")


def check_steps(who: str, steps: int) -> None:
    """Checks a number of steps.

    Args:
      who: the function that was called, for messages.
      steps: the number.

    Raises:
      ValueError: it is not an integer of at least 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"{who}: steps must be an integer of at least 1, got {steps!r}")
