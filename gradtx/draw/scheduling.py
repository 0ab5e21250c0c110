"""Figures of schedules by step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.draw.descending import check_steps
from gradtx.draw.style import finish, line_styles, new_figure
from gradtx.engine.base import ScalarOrSchedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def schedule_values(schedule: ScalarOrSchedule, steps: int) -> np.ndarray:
    """Returns a schedule's values at steps 0 to `steps`.

    Args:
      schedule: the schedule, or a constant.
      steps: the last step.

    Example:
      >>> import gradtx
      >>> from gradtx.draw.scheduling import schedule_values
      >>> schedule_values(gradtx.linear_schedule(1.0, 0.0, 4), 5).tolist()
      [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if not callable(schedule):
        return np.full(steps + 1, float(schedule))
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps + 1)), np.float64)


def schedules(
    schedules: Mapping[str, ScalarOrSchedule],
    steps: int,
    *,
    title: str = "",
    values_are: str = "learning rate",
) -> "Figure":
    """Draws schedules by step, each in its own panel, with the others pale in the background.

    Args:
      schedules: the schedules, or constants, by their names in the figure.
      steps: the last step to be drawn.
      title: the title. Default: none.
      values_are: what the values are, with their unit. Default: "learning rate".

    Returns:
      A matplotlib figure, made without pyplot.

    Raises:
      ValueError: `schedules` is empty, or `steps` is below 1.
      TrainingError: matplotlib is not installed.

    Example:
      >>> import gradtx
      >>> falling = gradtx.linear_schedule(1.0, 0.0, 100)
      >>> figure = gradtx.draw.schedules({"constant": 0.5, "linear": falling}, 100)
      >>> [axes.get_title() for axes in figure.axes]
      ['constant', 'linear']
    """
    if not isinstance(schedules, Mapping) or not schedules:
        raise ValueError(
            'schedules: schedules must be a non-empty mapping such as {"constant": 0.1}, '
            f"got {schedules!r}"
        )
    check_steps("schedules", steps)
    values = {name: schedule_values(schedule, steps) for name, schedule in schedules.items()}
    styles = line_styles(values)
    count = len(values)
    columns = count if count <= 3 else 2 if count == 4 else min(4, -(-count // 2))
    rows = -(-count // columns)

    figure = new_figure(2.4 * max(columns, 2), 2.0 * rows + 0.4)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, own) in zip(panels, values.items(), strict=False):
        for other in values.values():
            axes.plot(other, color="#d9d9d9", linewidth=0.8, zorder=1)
        axes.plot(own, color=styles[name]["color"], linewidth=2, zorder=3)
        axes.set_title(name, fontsize=10)
        axes.set_xlim(0, steps)
        finish(axes)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[max(0, count - columns) : count]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    figure.supylabel(values_are, fontsize=10)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
