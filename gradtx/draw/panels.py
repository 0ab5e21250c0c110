"""Panels of a surface and the paths on it, from above and from the side."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtx.draw.plane import Surface, Window, along, cut, interpolated, outside
from gradtx.draw.style import GREY
from gradtx.problems import Problem
from gradtx.train.errors import extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAP = "Greys"  # colours are for the paths
_DARKEST = 0.45  # the darkest shade of the map, so that lines stand out
_LINES: dict[str, Any] = {"colors": "#8c8c8c", "linewidths": 0.6, "linestyles": "solid"}
_ELEVATION, _TALL = 50, 0.65  # the camera's elevation in degrees; the height of the box
_SHOWN = 91  # points along each axis in a view from the side
_BANDS = 13  # shades in a view from the side


def draw_contours(axes: "Axes", surface: Surface, *, clabel: bool = False) -> None:
    """Draws a surface from above: geometrically spaced contours, with shades between them.

    Args:
      axes: matplotlib axes.
      surface: the surface.
      clabel: whether to label the contours with their values. Default: no.
    """
    levels = surface.levels()
    if levels.size:
        values = np.ma.masked_invalid(surface.values)
        shades = _shades(len(levels) + 1)
        axes.contourf(surface.x, surface.y, values, levels, colors=shades, extend="both")
        lines = axes.contour(surface.x, surface.y, values, levels, **_LINES)
        if clabel:
            axes.clabel(lines, levels[::2], fmt="%.2g", fontsize=7, colors=GREY)
    axes.set_xlim(*surface.window[0])
    axes.set_ylim(*surface.window[1])


def draw_path(
    axes: "Axes", surface: Surface, points: np.ndarray, style: Mapping[str, Any], end: float = 8
) -> None:
    """Draws a path from above, cut off at the border; its end and, if few, its steps are marked.

    Args:
      axes: matplotlib axes.
      surface: the surface of the path.
      points: the points of the path, `[points, 2]`.
      style: keyword arguments of matplotlib's `plot`.
      end: the size of the mark at the end, see `end_sizes`. Default: 8.
    """
    shown = cut(points, surface.window)
    look = {name: value for name, value in style.items() if name != "label"}
    axes.plot([], [], **style, **_end(), markersize=7)  # line and mark, for the legend
    axes.plot(*shown.T, **{**look, "marker": ""}, linewidth=1.6)
    if len(points) <= 60:  # with more steps the marks would hide the line
        inside = points[~outside(points, surface.window)]
        axes.plot(*inside.T, **{**look, "linestyle": "", "markersize": 3})
    axes.plot(*shown[-1:].T, **{**look, "linestyle": ""}, **_end(), markersize=end, zorder=5)


def _end() -> dict[str, Any]:
    """Returns the look of a path's end: an outline, with a white rim that lifts it off the path."""
    rim = extra("matplotlib.patheffects", "to draw").withStroke(linewidth=4, foreground="white")
    return {"markerfacecolor": "none", "markeredgewidth": 1.8, "path_effects": [rim]}


def end_sizes(ends: np.ndarray, window: Window) -> list[float]:
    """Returns sizes of the marks at the ends of paths, so that none hides another.

    The marks are outlines; those of paths that end in one place surround one another.

    Args:
      ends: the last points of the paths, `[paths, 2]`.
      window: the part of the plane that is shown.
    """
    size = np.array([high - low for low, high in window])
    later = [
        np.sum(np.max(np.abs(ends[i + 1 :] - end) / size, axis=1, initial=0) < 0.03)
        for i, end in enumerate(ends)
    ]
    return [8 + 5 * float(count) for count in later]


def draw_marks(axes: "Axes", problem: Problem, surface: Surface) -> None:
    """Marks the start with a ring, the minima with crosses, and the saddle points with pluses.

    Args:
      axes: matplotlib axes.
      problem: the problem. Its points outside of the window are not marked.
      surface: the surface, whose window is shown.
    """
    ring = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 7}
    cross = {"marker": "X", "color": "#F0E442", "markeredgecolor": "black", "markersize": 9}
    for points, look, label, height in (
        ([problem.start], ring, "start", 6),
        (problem.minima, cross, "minimum", 4),
        (problem.saddles, {**cross, "marker": "P", "color": "white"}, "saddle point", 4),
    ):
        there = np.array(list(points), float).reshape(-1, 2)
        there = there[~outside(there, surface.window)]
        if len(there):
            axes.plot(*there.T, linestyle="", label=label, zorder=height, **look)


def draw_view(
    axes: Any,
    surface: Surface,
    paths: Iterable[tuple[np.ndarray, Mapping[str, Any], float]],
    labels: tuple[str, str, str],
) -> None:
    """Draws a surface from the side, with the paths on it.

    Args:
      axes: three-dimensional matplotlib axes.
      surface: the surface.
      paths: the points of each path, `[points, 2]`, its keyword arguments of `plot`, and the size
        of the mark at its end.
      labels: the labels of the three axes.
    """
    x_label, y_label, name = labels
    heights, logarithmic = surface.heights()
    low, high = float(heights.min()), float(heights.max())
    xs, ys = np.meshgrid(*(np.linspace(*side, _SHOWN) for side in surface.window))
    shown = interpolated(surface, heights, np.stack([xs, ys], -1).reshape(-1, 2)).reshape(xs.shape)
    colours = extra("matplotlib.colors", "to draw").ListedColormap(_shades(_BANDS))
    # matplotlib sorts whole objects by depth, which would hide paths behind their surface.
    axes.computed_zorder = False
    axes.plot_surface(
        xs, ys, shown, cmap=colours, rcount=_SHOWN, ccount=_SHOWN, linewidth=0, zorder=1,
        antialiased=False,
    )  # fmt: skip
    if high > low:
        axes.contour(xs, ys, shown, np.linspace(low, high, _BANDS + 1)[1:-1], zorder=2, **_LINES)
    lift = 0.01 * (high - low)
    for points, style, end in paths:
        line = along(cut(points, surface.window), surface.window)
        if len(line):
            z = interpolated(surface, heights, line) + lift
            axes.plot(*line.T, z, **{**style, "marker": ""}, linewidth=1.8, zorder=3)
            last = {**style, **_end(), "linestyle": "", "markersize": end}
            axes.plot(*line[-1:].T, z[-1:], **last, zorder=4)
    axes.set_xlim(*surface.window[0])
    axes.set_ylim(*surface.window[1])
    axes.view_init(elev=_ELEVATION, azim=best_azimuth(shown[::3, ::3]))
    axes.tick_params(labelsize=7, pad=0)
    axes.locator_params(nbins=5, prune="both")
    if logarithmic:
        first, last = math.ceil(low), math.floor(high)
        ticks = np.arange(first, last + 1, max(1, (last - first) // 4))
        axes.set_zticks(ticks, [f"$10^{{{k}}}$" for k in ticks])
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    counted = name if surface.least == 0 else f"{name} - least"
    axes.set_zlabel(f"{counted} (log scale)" if logarithmic else name, fontsize=9)
    axes.set_box_aspect((1, 1, _TALL), zoom=0.92)


def best_azimuth(heights: np.ndarray) -> int:
    """Returns the camera's azimuth, in degrees, from which the surface is seen best.

    Each point counts with the cosine of the angle between the line of sight and the surface's
    normal; hidden points do not count.

    Args:
      heights: the surface's heights, a square array.
    """
    level = (heights - heights.min()) / (np.ptp(heights) or 1.0) * _TALL
    side = np.linspace(0, 1, len(level))
    unit = Surface(side, side, level, 0.0)
    dy, dx = np.gradient(level, side, side)
    upright = np.stack([-dx, -dy, np.ones_like(dx)], -1).reshape(-1, 3)
    upright /= np.linalg.norm(upright, axis=1, keepdims=True)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    rise = math.tan(math.radians(_ELEVATION))

    def seen(azimuth: int) -> float:
        angle = math.radians(azimuth)
        toward = np.array([math.cos(angle), math.sin(angle)])
        hidden = np.zeros(len(points), bool)
        for far in np.linspace(0, 1 / rise, 16)[1:]:  # above all heights beyond
            there = points + far * toward
            inside = ((there >= 0) & (there <= 1)).all(1)
            hidden |= inside & (interpolated(unit, level, there) > level.ravel() + far * rise)
        cosine = upright @ [*(toward / math.hypot(1, rise)), rise / math.hypot(1, rise)]
        return float(np.mean(np.where(hidden, 0, cosine.clip(0))))

    # As seen from above, x grows to the right and y away from the camera. Not along an axis or a
    # diagonal, where the box looks flat; matplotlib's default wins ties.
    return max((-60, -120, -70, -110), key=lambda a: round(seen(a), 2))


def _shades(count: int) -> np.ndarray:
    chosen = extra("matplotlib", "to draw").colormaps[_MAP]
    return chosen(np.linspace(0.02, _DARKEST, count))
