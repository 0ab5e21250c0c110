"""Figures of the loss around trained parameters, over a plane through them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.draw.directions import (
    Plane,
    Trajectory,
    path_directions,
    projected,
    random_direction,
)
from gradtx.draw.panels import draw_contours, draw_path, draw_view
from gradtx.draw.plane import Surface, surface_of
from gradtx.draw.style import COLOURS, GREY, new_figure
from gradtx.engine.base import Array, Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STAR: dict[str, Any] = {"marker": "*", "color": "#F0E442", "markeredgecolor": "black"}


def surface_around(
    loss: Callable[[Params], Array],
    params: Params,
    directions: Plane,
    span: float,
    points: int,
) -> Surface:
    """Evaluates the loss at `params + x * d1 + y * d2`, in one compiled program.

    Args:
      loss: the loss, a function of the parameters alone.
      params: the centre.
      directions: `d1` and `d2`.
      span: the largest absolute value of `x` and `y`.
      points: the number of values of `x` and of `y`. An odd number includes the centre.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.draw import surface_around
      >>> def loss(params):
      ...     return jnp.sum(params["w"] ** 2)
      >>> axes = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 1.0])}
      >>> surface_around(loss, {"w": jnp.zeros(2)}, axes, span=1.0, points=3).values.tolist()
      [[2.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 2.0]]
    """
    side = np.linspace(-span, span, points)

    @jax.jit
    def evaluate(params: Params, directions: Plane, side: Array) -> Array:
        def at(x: Array, y: Array) -> Array:
            return loss(jax.tree.map(lambda p, d, e: _moved_by(p, x, d, y, e), params, *directions))

        # Row by row: all at once would need `points` times the memory.
        return jax.lax.map(lambda y: jax.vmap(lambda x: at(x, y))(side), side)

    values = np.asarray(evaluate(params, directions, jnp.asarray(side)), np.float64)
    # Most losses are never negative; then heights are the loss itself.
    least = None if (values < 0).any() else 0.0
    return surface_of("loss_surface", side, side, values, least)


def _moved_by(p: ArrayLike, x: Array, d: Array, y: Array, e: Array) -> Array:
    p = jnp.asarray(p)
    if not jnp.issubdtype(p.dtype, jnp.inexact):
        return p
    return (p + x * d + y * e).astype(p.dtype)


def loss_surface(
    loss: Callable[[Params], Array],
    params: Params,
    *,
    trajectory: Trajectory | None = None,
    key: Array | None = None,
    directions: Literal["random", "path"] = "random",
    span: float | None = None,
    points: int = 25,
    title: str = "",
) -> "Figure":
    """Draws the loss around parameters over a plane through them, from above and from the side.

    The plane is spanned by two random directions that are normalized filter by filter (see
    `random_direction`), or by the two directions in which the trajectory moved most. A trajectory
    is projected onto the plane. With thousands of parameters, two random directions contain hardly
    any of its movement: the title gives the percentage, and a trajectory that is too small to be
    seen is magnified in a corner. `directions="path"` shows it best.

    Args:
      loss: the loss, a function of the parameters alone, for instance over a whole data set.
      params: the parameters, the centre of the figure.
      trajectory: the parameters during training: a list of pytrees like `params`, or one pytree
        whose arrays have an additional first axis. Default: none.
      key: the key of the random directions. Default: `jax.random.key(0)`.
      directions: `"random"`, or `"path"` for the principal directions of the trajectory. Default:
        `"random"`.
      span: the distance from the centre to the border, in units of the directions; for those of a
        path, 1 is the largest distance of its points. Default: 1, and 1.25 for a path.
      points: the number of evaluations along each axis, at least 3. Default: 25.
      title: the title. Default: none.

    Returns:
      A matplotlib figure, made without pyplot.

    Raises:
      ValueError: `directions`, `span` or `points` is invalid, `params` have no filters, or the
        trajectory does not have their shapes or does not span a plane.
      TrainingError: matplotlib is not installed.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", arXiv:1712.09913.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return jnp.sum((p["w"] - 1) ** 2)
      >>> figure = gradtx.draw.loss_surface(loss, {"w": jnp.ones((3, 2))}, points=5)
      >>> [axes.name for axes in figure.axes]
      ['rectilinear', '3d']
    """
    _check(directions, span, points, trajectory)
    key = jax.random.key(0) if key is None else key
    if directions == "path":
        plane = path_directions(params, trajectory)
        names = ("path's main direction", "path's second direction")
    else:
        first, second = jax.random.split(key)
        plane = random_direction(first, params), random_direction(second, params)
        names = ("first random direction", "second random direction")
    if span is None:
        span = 1.25 if directions == "path" else 1.0
    surface = surface_around(loss, params, plane, span, points)

    figure = new_figure(9.6, 4.6)
    flat = figure.add_subplot(1, 2, 1)
    draw_contours(flat, surface, clabel=True)
    flat.set_xlabel(names[0])
    flat.set_ylabel(names[1])
    paths = []
    if trajectory is not None:
        way, share = projected(params, trajectory, plane)
        look = {"color": COLOURS[1], "linestyle": "-", "marker": "o"}
        paths.append((way, look, 8.0))
        draw_path(flat, surface, way, {**look, "label": "trajectory"})
        if np.abs(way).max() < 0.1 * span:
            _magnify(flat, surface, way, look)
        flat.set_title(f"{_percent(share)} of the path is in this plane", fontsize=9, color=GREY)
    flat.plot(0, 0, **_STAR, markersize=13, linestyle="", label="params", zorder=5)
    flat.legend(loc="lower left", fontsize=8, framealpha=1)
    view = figure.add_subplot(1, 2, 2, projection="3d")
    draw_view(view, surface, paths, (names[0], names[1], "loss"))
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _magnify(axes: "Axes", surface: Surface, way: np.ndarray, look: dict[str, Any]) -> None:
    """Draws a path that is too small to be seen again, magnified in a corner."""
    size = 1.2 * float(np.abs(way).max()) or 0.01 * surface.window[0][1]
    corner = axes.inset_axes((0.62, 0.62, 0.36, 0.36), xlim=(-size, size), ylim=(-size, size))
    corner.plot(*way.T, **look, markersize=3, linewidth=1.2)
    corner.plot(0, 0, **_STAR, markersize=9)
    corner.set_xticks([-size, size], [f"{-size:.1g}", f"{size:.1g}"], fontsize=7)
    corner.set_yticks([])
    axes.indicate_inset_zoom(corner, edgecolor=GREY)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.999 else "all"


def _check(directions: str, span: float | None, points: int, trajectory: Trajectory | None) -> None:
    if directions not in ("random", "path"):
        raise ValueError(f'loss_surface: directions must be "random" or "path", got {directions!r}')
    if directions == "path" and trajectory is None:
        raise ValueError('loss_surface: directions="path" needs a trajectory')
    if span is not None and not 0 < span < np.inf:
        raise ValueError(f"loss_surface: span must be positive and finite, got {span}")
    if not isinstance(points, int) or points < 3:
        raise ValueError(f"loss_surface: points must be an integer of at least 3, got {points!r}")
