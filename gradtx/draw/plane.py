"""Values of functions over a part of the plane, and the geometry of paths on them."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.problems import Problem

Window = tuple[tuple[float, float], tuple[float, float]]
"""A part of the plane: the ranges of the two coordinates."""

_LEVELS = 12  # more contours would overlap


class Surface(NamedTuple):
    """A function on a grid.

    Attributes:
      x: the first coordinate of the columns, `[columns]`.
      y: the second coordinate of the rows, `[rows]`.
      values: the function's values, `[rows, columns]`.
      least: the value that contours and heights are relative to.
    """

    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    least: float

    @property
    def window(self) -> Window:
        """The part of the plane that the grid covers."""
        return (float(self.x[0]), float(self.x[-1])), (float(self.y[0]), float(self.y[-1]))

    def levels(self) -> np.ndarray:
        """Returns the values of contours, geometrically spaced above the least value.

        One percent of the grid is below the lowest contour, so that it is visible. A constant
        function has no contours.
        """
        above = self._above()
        above = above[above > 0]
        if not above.size or np.ptp(self._above()) <= 1e-6 * abs(self.least + above.max()):
            return np.array([])
        low = max(float(np.quantile(above, 0.01)), 1e-6 * float(above.max()))
        return self.least + np.geomspace(low, above.max(), _LEVELS)

    def heights(self) -> tuple[np.ndarray, bool]:
        """Returns the heights in a view from the side, and whether they are logarithms.

        If most of the surface is flat compared with its highest part, heights are
        `log10(value - least)`, with a floor at the lowest contour.
        """
        levels = self.levels()
        top = float(self.values[np.isfinite(self.values)].max())
        values = np.nan_to_num(
            self.values, nan=top, posinf=top
        )  # values that are not finite become the highest
        above = np.clip(values, self.least, top) - self.least
        if not levels.size or top - self.least < 100 * np.quantile(above, 0.1):
            return self.least + above, False
        return np.log10(np.maximum(above, levels[0] - self.least)), True

    def _above(self) -> np.ndarray:
        return np.clip(self.values[np.isfinite(self.values)] - self.least, 0, None)


def surface_of(
    who: str, x: np.ndarray, y: np.ndarray, values: np.ndarray, least: float | None
) -> Surface:
    """Returns the surface of a function's values.

    Args:
      who: the function that was called, for messages.
      x: the first coordinate of the columns.
      y: the second coordinate of the rows.
      values: the values, `[rows, columns]`.
      least: the function's minimum, or `None` for the minimum on the grid.

    Raises:
      ValueError: no value is finite.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError(f"{who}: the function must be finite somewhere in the window")
    return Surface(x, y, values, float(finite.min()) if least is None else least)


def on_grid(
    who: str, fun: Callable[[Array], Array], window: Window, points: int, least: float | None
) -> Surface:
    """Evaluates a function of a 2-vector on a grid, as one compiled program.

    Args:
      who: the function that was called, for messages.
      fun: the function.
      window: the part of the plane that the grid covers.
      points: the number of points along each axis.
      least: the function's minimum, or `None` for the minimum on the grid.

    Example:
      >>> from gradtx.draw.plane import on_grid
      >>> surface = on_grid("plot", lambda x: x[0] + 10 * x[1], ((0, 2), (0, 1)), 3, None)
      >>> print(surface.values)
      [[ 0.  1.  2.]
       [ 5.  6.  7.]
       [10. 11. 12.]]
    """
    x, y = (np.linspace(*side, points) for side in window)
    corners = jnp.stack(jnp.meshgrid(jnp.asarray(x), jnp.asarray(y)), -1)
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(fun)))(corners), np.float64)
    return surface_of(who, x, y, values, least)


def interpolated(surface: Surface, heights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns the heights at any points, by bilinear interpolation on the grid.

    Args:
      surface: the grid.
      heights: the heights on the grid, `[rows, columns]`.
      points: the points, `[points, 2]`, in the grid's window; NaN stays NaN.
    """
    safe = np.nan_to_num(points)
    cells = []
    for side, where in ((surface.x, safe[:, 0]), (surface.y, safe[:, 1])):
        place = np.clip((where - side[0]) / (side[1] - side[0]), 0, len(side) - 1)
        cell = np.minimum(place.astype(int), len(side) - 2)
        cells.append((cell, place - cell))
    (i, u), (j, v) = cells
    low = (1 - u) * heights[j, i] + u * heights[j, i + 1]
    high = (1 - u) * heights[j + 1, i] + u * heights[j + 1, i + 1]
    return np.where(np.isnan(points).any(1), np.nan, (1 - v) * low + v * high)


def outside(points: np.ndarray, window: Window) -> np.ndarray:
    """Returns which points are outside of a window or not finite, `[points]`.

    Args:
      points: the points, `[points, 2]`.
      window: the window.
    """
    low, high = np.array(window).T
    return ~((points >= low) & (points <= high)).all(1)


def cut(points: np.ndarray, window: Window) -> np.ndarray:
    """Cuts a path at the border of a window.

    Args:
      points: the points of the path, `[points, 2]`.
      window: the window.

    Returns:
      The points of the visible parts, including those on the border, with a row of NaN between two
      parts.

    Source: Liang and Barsky, "A new concept and method for line clipping" (1984).

    Example:
      >>> import numpy as np
      >>> from gradtx.draw.plane import cut
      >>> cut(np.array([[0.5, 0.5], [0.5, 3.0]]), ((0.0, 1.0), (0.0, 1.0))).tolist()
      [[0.5, 0.5], [0.5, 1.0]]
    """
    kept: list[np.ndarray] = []
    for start, end in itertools.pairwise(points):
        part = _part_inside(start, end, window)
        if part is None:
            continue
        if kept and not np.array_equal(kept[-1], part[0]):
            kept.append(np.full(2, np.nan))
        if not kept or np.isnan(kept[-1]).any():
            kept.append(part[0])
        kept.append(part[1])
    return np.array(kept).reshape(-1, 2)


def _part_inside(
    start: np.ndarray, end: np.ndarray, window: Window
) -> tuple[np.ndarray, np.ndarray] | None:
    if not np.isfinite([*start, *end]).all():
        return None
    first, last = 0.0, 1.0
    for here, there, (low, high) in zip(start, end, window, strict=True):
        move = there - here
        if move == 0:
            if not low <= here <= high:
                return None
            continue
        near, far = sorted(((low - here) / move, (high - here) / move))
        first, last = max(first, near), min(last, far)
    if first > last:
        return None
    # Unclipped ends are exact, without rounding, because the next part starts there.
    a = start if first == 0 else start + first * (end - start)
    b = end if last == 1 else start + last * (end - start)
    return a, b


def along(points: np.ndarray, window: Window, pieces: int = 200) -> np.ndarray:
    """Inserts points into the segments of a path, so that it follows a curved surface.

    Args:
      points: the points of the path, `[points, 2]`; NaN interrupts it.
      window: the part of the plane that is shown.
      pieces: the number of pieces of a segment as long as the window. Default: 200.
    """
    if len(points) < 2:
        return points
    size = np.array([high - low for low, high in window])
    filled = [points[:1]]
    for start, end in itertools.pairwise(points):
        length = np.max(np.abs(end - start) / size)
        count = 1 if math.isnan(length) else max(1, math.ceil(pieces * length))
        steps = np.arange(1, count + 1)[:, None] / count
        filled.append(end[None] if count == 1 else start + steps * (end - start))
    return np.concatenate(filled)


def as_problem(
    who: str,
    problem: Problem | Callable[[Array], Array],
    start: ArrayLike | None,
    window: ArrayLike | None,
) -> tuple[Problem, Window, float | None]:
    """Checks a problem, its start and its window, and fills in the problem's defaults.

    Args:
      who: the function that was called, for messages.
      problem: a `Problem`, or any function of a 2-vector.
      start: the start, or `None` for the problem's start.
      window: the part of the plane to show, or `None` for the problem's window.

    Returns:
      A problem with that start, the window, and the minimum value if it is known.

    Raises:
      TypeError: `problem` is not a function.
      ValueError: `problem` is not in the plane, or `start` or `window` is missing or invalid.
    """
    if not callable(problem):
        raise TypeError(f"{who}: problem must be a function of a 2-vector, got {problem!r}")
    least = problem.least if isinstance(problem, Problem) else None
    if not isinstance(problem, Problem):
        for name, given in (("start", start), ("window", window)):
            if given is None:
                raise ValueError(
                    f"{who}: {name} must be given, because problem is not a gradtx Problem"
                )
        title = getattr(problem, "__name__", "")
        problem = Problem(title, problem, (), -math.inf, (), (), None, "")
    start = problem.start if start is None else start
    window = problem.window if window is None else window
    if window is None:
        raise ValueError(f"{who}: window must be given, because {problem.name} has none")
    start, window = _numbers(who, "start", start, (2,)), _numbers(who, "window", window, (2, 2))
    if not (window[:, 0] < window[:, 1]).all():
        raise ValueError(f"{who}: window must be two ranges with low < high, got {window.tolist()}")
    (a, b), (c, d) = window.tolist()
    return problem._replace(start=tuple(start.tolist())), ((a, b), (c, d)), least


def _numbers(who: str, name: str, given: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.shape != shape or not np.isfinite(array).all():
        needed = "two finite numbers" if shape == (2,) else "two ranges ((low, high), (low, high))"
        raise ValueError(f"{who}: {name} must be {needed}, got {given!r}")
    return array
