"""Optimizers on their way down a surface over the plane."""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradtx._minimize import Stop, minimize
from gradtx.draw.panels import draw_contours, draw_marks, draw_path, draw_view
from gradtx.draw.plane import Surface, Window, as_problem, on_grid, outside
from gradtx.draw.style import line_styles, new_figure
from gradtx.engine.base import GradientTransformation

GRID = 161
"""Points to each side of the grids that surfaces are drawn from."""


class Descent(NamedTuple):
    """Where an optimizer went.

    Attributes:
      points: where it was, `[steps + 1, 2]`; the first is the start.
      values: the function's values there, `[steps + 1]`.
      diverged: whether it stopped because the next value was not finite.
    """

    points: np.ndarray
    values: np.ndarray
    diverged: bool

    def visible(self, window: Window) -> np.ndarray:
        """Gives the points up to the step that leaves the picture for good.

        Args:
          window: what is in the picture.
        """
        away = outside(self.points, window)
        return self.points[: _last_exit(away) + 1] if away[-1] else self.points

    def story(self, window: Window, ends: str = "{:.2g}") -> str:
        """Tells in a few words how it ended, and whether it left the picture.

        Args:
          window: what is in the picture.
          ends: how the last value is to be written. Default: as a number of two digits.
        """
        away = outside(self.points, window)
        if self.diverged:
            return "diverges"
        if away[-1]:
            return f"leaves the picture at step {_last_exit(away)}"
        ends = ends.format(self.values[-1])
        return f"{ends} (outside in {away.sum()} steps)" if away.any() else ends


def _last_exit(away: np.ndarray) -> int:
    """The step from which on it is away for good."""
    inside = np.flatnonzero(~away)
    return int(inside[-1]) + 1 if inside.size else 0


def descend(
    fun: Callable[[Any], Any], start: Any, tx: GradientTransformation, steps: int
) -> Descent:
    """Lets an optimizer go down a function, step by step, in one compiled loop.

    Args:
      fun: the function of a 2-vector.
      start: where to start.
      tx: the optimizer.
      steps: how many steps it takes. It stops sooner where the gradient is exactly 0 or the next
        value is not finite, and stays there.

    Example:
      >>> import gradtx
      >>> from gradtx.draw.descending import descend
      >>> path = descend(lambda x: x @ x, (1.0, 2.0), gradtx.sgd(0.25), 2)
      >>> path.points.tolist(), path.values.tolist()
      ([[1.0, 2.0], [0.5, 1.0], [0.25, 0.5]], [5.0, 1.25, 0.3125])
    """
    x0 = jnp.asarray(start, float)
    found = minimize(fun, x0, tx, max_steps=steps, tol=0.0, value_tol=0.0, trajectory=True)
    assert found.trajectory is not None  # it was asked for
    points, values = (np.asarray(a, np.float64) for a in found.trajectory[:2])
    return Descent(points, values, int(found.stop) == Stop.NOT_FINITE)


def descent(
    problem: Any,
    optimizers: Mapping[str, GradientTransformation],
    *,
    start: Any = None,
    steps: int = 100,
    window: Any = None,
    title: str = "",
) -> Any:
    """Draws the ways of several optimizers down a surface, from above and from the side.

    Contours are at equal ratios above the least value. The start is a ring, known minima are
    crosses, the end of each path has a mark, and so has each step if there are at most 60. A path
    is cut where it leaves the picture, and the legend says so; otherwise it gives the last value.

    Args:
      problem: a `gradtx.problems.Problem` in the plane, or any function of a 2-vector, in JAX.
      optimizers: the transformations, by the name they shall have in the picture.
      start: where to start, two numbers. Default: the problem's start.
      steps: how many steps each takes. Default: 100.
      window: what to show, `((low, high), (low, high))`. Default: the problem's window.
      title: the picture's title. Default: the problem's name.

    Returns:
      A matplotlib figure, made without pyplot; `figure.savefig("descent.png")` keeps it.

    Raises:
      TypeError: `problem` is no function, or an optimizer is no transformation.
      ValueError: there are no optimizers or steps, or start or window are missing or no such thing.
      TrainingError: matplotlib is not installed.

    Example:
      >>> import gradtx
      >>> figure = gradtx.draw.descent(
      ...     gradtx.problems.booth, {"sgd": gradtx.sgd(0.05), "adam": gradtx.adam(0.5)}, steps=30
      ... )
      >>> [text.get_text() for text in figure.legends[0].get_texts()]
      ['start', 'minimum', 'sgd: 0.058', 'adam: 0.5']
    """
    problem, window, least = as_problem("descent", problem, start, window)
    check_steps("descent", steps)
    if not isinstance(optimizers, Mapping) or not optimizers:
        raise ValueError(
            'descent: optimizers must be a mapping such as {"sgd": gradtx.sgd(0.1)}, and not '
            f"empty; got {optimizers!r}"
        )
    for label, tx in optimizers.items():
        if not (hasattr(tx, "init") and hasattr(tx, "update")):
            raise TypeError(
                f"descent: optimizers[{label!r}] must be a transformation, as gradtx.adam(0.1) is; "
                f"got {tx!r}"
            )
    paths = {k: descend(problem.fun, problem.start, tx, steps) for k, tx in optimizers.items()}
    surface = on_grid("descent", problem.fun, window, GRID, least)
    styles = line_styles(paths)

    figure = new_figure(9.6, 5.0)
    flat = figure.add_subplot(1, 2, 1)
    draw_surface_above(flat, surface, problem)
    for label, path in paths.items():
        look = {**styles[label], "label": f"{label}: {path.story(window)}"}
        draw_path(flat, surface, path.visible(window), look)
    view = figure.add_subplot(1, 2, 2, projection="3d")
    lines = [(path.visible(window), styles[label]) for label, path in paths.items()]
    draw_view(view, surface, lines, ("x[0]", "x[1]", "value"))
    figure.suptitle(title or problem.name, fontsize=11)
    figure.legend(
        *flat.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=9,
        ncols=4, title=f"value after {steps} steps", title_fontsize=9,
    )  # fmt: skip
    return figure


def draw_surface_above(axes: Any, surface: Surface, problem: Any) -> None:
    """Draws a problem from above, with its start and its minima.

    Args:
      axes: matplotlib axes.
      surface: the problem's values.
      problem: the problem.
    """
    draw_contours(axes, surface)
    draw_marks(axes, problem.start, problem.minima, surface)
    axes.set_xlabel("x[0]")
    axes.set_ylabel("x[1]")


def check_steps(who: str, steps: Any) -> None:
    """Checks a number of steps.

    Args:
      who: the function that was called, for messages.
      steps: the number.

    Raises:
      ValueError: it is not a whole number, at least 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"{who}: steps is {steps!r}, and must be a whole number from 1")
