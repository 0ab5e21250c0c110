"""Functions over a part of the plane, as numbers: what is drawn of them, and of paths on them."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.problems import Problem

Window = tuple[tuple[float, float], tuple[float, float]]
"""A part of the plane: the ranges of the two coordinates."""

_LEVELS = 12  # more contours run into each other


class Surface(NamedTuple):
    """A function on a grid.

    Attributes:
      x: the first coordinate of the columns, `[columns]`.
      y: the second coordinate of the rows, `[rows]`.
      values: the function's values, `[rows, columns]`.
      least: the value that contours and heights are counted from.
    """

    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    least: float

    @property
    def window(self) -> Window:
        """What the grid covers."""
        return (float(self.x[0]), float(self.x[-1])), (float(self.y[0]), float(self.y[-1]))

    def levels(self) -> np.ndarray:
        """Gives the values of contours, at equal ratios above the least value.

        The lowest has a hundredth of the grid below it, so that each can be seen. A constant has
        none.
        """
        above = self._above()
        above = above[above > 0]
        if not above.size or np.ptp(self._above()) <= 1e-6 * abs(self.least + above.max()):
            return np.array([])
        low = max(float(np.quantile(above, 0.01)), 1e-6 * float(above.max()))
        return self.least + np.geomspace(low, above.max(), _LEVELS)

    def heights(self) -> tuple[np.ndarray, bool]:
        """Gives what a view from the side shows, and whether it is a logarithm.

        Where most of the surface is flat beside its highest part, heights are
        `log10(value - least)`, with a floor at the lowest contour.
        """
        levels = self.levels()
        top = float(self.values[np.isfinite(self.values)].max())
        values = np.nan_to_num(self.values, nan=top, posinf=top)  # what is not finite is high
        above = np.clip(values, self.least, top) - self.least
        if not levels.size or top - self.least < 100 * np.quantile(above, 0.1):
            return self.least + above, False
        return np.log10(np.maximum(above, levels[0] - self.least)), True

    def _above(self) -> np.ndarray:
        return np.clip(self.values[np.isfinite(self.values)] - self.least, 0, None)


def surface_of(
    who: str, x: np.ndarray, y: np.ndarray, values: np.ndarray, least: float | None
) -> Surface:
    """Makes a surface of a function's values.

    Args:
      who: the function that was called, for messages.
      x: the first coordinate of the columns.
      y: the second coordinate of the rows.
      values: the values, `[rows, columns]`.
      least: the function's least value, or `None` if it is not known: then the grid's counts.

    Raises:
      ValueError: no value is finite.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError(f"{who}: the function is finite nowhere in the window")
    return Surface(x, y, values, float(finite.min()) if least is None else least)


def on_grid(
    who: str, fun: Callable[[Any], Any], window: Window, points: int, least: float | None
) -> Surface:
    """Evaluates a function of a 2-vector on a grid, as one compiled program.

    Args:
      who: the function that was called, for messages.
      fun: the function.
      window: what the grid covers.
      points: how many points it has to each side.
      least: the function's least value, or `None` if it is not known: then the grid's counts.

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
    """Gives the heights at points between those of the grid, linearly in both coordinates.

    Args:
      surface: the grid.
      heights: what is to be interpolated, `[rows, columns]`.
      points: `[points, 2]`, on the grid's part of the plane; NaN stays NaN.
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
    """Says which points lie outside of a window, or are not finite.

    Args:
      points: `[points, 2]`.
      window: the window.
    """
    low, high = np.array(window).T
    return ~((points >= low) & (points <= high)).all(1)


def cut(points: np.ndarray, window: Window) -> np.ndarray:
    """Cuts a path at the border of a window.

    Args:
      points: the path's corners, `[points, 2]`.
      window: the window.

    Returns:
      The corners of what is left, with the points on the border, and a row of NaN where the path is
      interrupted.

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
    # The ends as they are, not as they come out of arithmetic: the next part begins there.
    a = start if first == 0 else start + first * (end - start)
    b = end if last == 1 else start + last * (end - start)
    return a, b


def along(points: np.ndarray, window: Window, pieces: int = 200) -> np.ndarray:
    """Puts points on the sides of a path, so that it follows a curved surface.

    Args:
      points: the path's corners, `[points, 2]`; NaN interrupts it.
      window: what is in the picture.
      pieces: into how many pieces a side as long as the window is cut. Default: 200.
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
    who: str, problem: Any, start: Any, window: Any
) -> tuple[Problem, Window, float | None]:
    """Checks what is to be drawn, and fills in what it says of itself.

    Args:
      who: the function that was called, for messages.
      problem: a `Problem`, or any function of a 2-vector.
      start: where to start, or `None` for the problem's start.
      window: what to show, or `None` for the problem's window.

    Returns:
      A problem with that start, the window, and the least value if it is known.

    Raises:
      TypeError: it is no function.
      ValueError: it is not in the plane, or start or window are missing or no such thing.
    """
    known = isinstance(problem, Problem)
    if not callable(problem):
        raise TypeError(f"{who}: problem is {problem!r}, and must be a function of a 2-vector")
    if not known:
        for name, given in (("start", start), ("window", window)):
            if given is None:
                raise ValueError(
                    f"{who}: a plain function needs {name}; a gradtx.problems.Problem has its own"
                )
        fun: Any = problem
        problem = Problem(getattr(fun, "__name__", ""), fun, (), -math.inf, (), (), None, "")
    start = problem.start if start is None else start
    window = problem.window if window is None else window
    if window is None:
        raise ValueError(f"{who}: {problem.name} has no window, and none is given")
    start, window = _numbers(who, "start", start, (2,)), _numbers(who, "window", window, (2, 2))
    if not (window[:, 0] < window[:, 1]).all():
        raise ValueError(f"{who}: window is {window.tolist()}, and must be two growing ranges")
    (a, b), (c, d) = window.tolist()
    least = problem.least if known else None
    return problem._replace(start=tuple(start.tolist())), ((a, b), (c, d)), least


def _numbers(who: str, name: str, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.shape != shape or not np.isfinite(array).all():
        want = "two finite numbers" if shape == (2,) else "two ranges ((low, high), (low, high))"
        raise ValueError(f"{who}: {name} is {given!r}, and must be {want}")
    return array
