"""The results of a race as a table and as figures."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from gradtx._table import filled, text_table
from gradtx.racing.pictures import draw_curves, draw_rates
from gradtx.racing.results import Results, Standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Race(Results):
    """The results of a race.

    Attributes:
      rows: all runs, by optimizer in the order given, then by learning rate, then by seed.
      target: the target accuracy, or the target loss if no accuracy is measured; `None` for no
        target. Default: `None`.
      title: the problem, for the titles of figures. Default: none.
      unit: the unit of the loss. Default: none.
    """

    def __str__(self) -> str:
        """Returns the table."""
        return self.table()

    def table(self, width: int | None = None) -> str:
        """Returns the leaderboard: each optimizer with its best rate, medians and ranges.

        Args:
          width: the number of columns into which it should fit, by wrapping. Default: any.

        Example:
          >>> import jax.numpy as jnp
          >>> import gradtx
          >>> race = gradtx.race(lambda p, x: jnp.mean((p - x) ** 2), jnp.zeros(()),
          ...                    [jnp.ones(2)], ["sgd"], learning_rates=[0.1, 0.25, 99.0], epochs=9)
          >>> print(race.table())
             optimizer  best rate      loss  range  diverged
          -  ---------  ---------  --------  -----  --------
          1  sgd        0.25       3.81e-06              3/9
        """
        standings = self.standings()
        scored = any(s.accuracy is not None for s in standings)
        loss = f"loss ({self.unit})" if self.unit else "loss"
        header, align = ["", "optimizer", "best rate", loss, "range"], "r  rr"
        if scored:
            header, align = [*header, "accuracy", "range"], align + "rr"
        if self.target is not None:
            goal = f"{self.target:.4g}" if not scored else f"{100 * self.target:.4g} %"
            header, align = [*header, f"steps to {goal}", "time (s)"], align + "rr"
        header, align = [*header, "diverged"], align + "r"
        rows = []
        for place, s in enumerate(standings, 1):
            row = [str(place), s.optimizer, f"{s.learning_rate:.3g}{_EDGE[s.at_edge]}"]
            row += [_loss(s.loss), _range(s.loss_range, _loss)]
            if scored and s.accuracy is not None and s.accuracy_range is not None:
                row += [f"{s.accuracy:.2%}", _range(s.accuracy_range, lambda x: f"{x:.2%}")]
            elif scored:
                row += ["", ""]
            if s.steps_to_target is not None and s.seconds_to_target is not None:
                far = not math.isfinite(s.steps_to_target)
                row += ["-", "-"] if far else [
                    f"{s.steps_to_target:.0f}", f"{s.seconds_to_target:.3g}"
                ]  # fmt: skip
            rows.append([*row, f"{s.diverged}/{s.runs}"])
        notes = self._notes(standings)
        if width is not None:
            notes = [filled(note, width) for note in notes]
        return "\n".join([text_table(header, rows, align, width), *notes])

    def _notes(self, standings: list[Standing]) -> list[str]:
        notes = [
            f"{_EDGE[edge].strip()} unfinished: the {word} rate of the race; try {more} rates"
            for edge, word, more in (("low", "smallest", "smaller"), ("high", "largest", "larger"))
            if any(s.at_edge == edge for s in standings)
        ]
        if self.target is not None:
            notes.append(
                "time: of the steps to the target, without compilation; an optimizer's runs are "
                "trained together, and share the time equally"
            )
        return notes

    def curves(self) -> "Figure":
        """Draws the loss by step, each optimizer with its best rate.

        Lines are medians over the seeds, in bands from the lowest to the highest loss.

        Returns:
          A matplotlib figure, made without pyplot.

        Raises:
          TrainingError: matplotlib is not installed.
        """
        return draw_curves(self)

    def rates(self) -> "Figure":
        """Draws the final loss by learning rate, with medians and bands as in `curves`.

        Returns:
          A matplotlib figure, made without pyplot.

        Raises:
          TrainingError: matplotlib is not installed.
        """
        return draw_rates(self)


_EDGE = {"": "", "low": " <", "high": " >"}


def _loss(loss: float) -> str:
    return f"{loss:.3g}"


def _range(ends: tuple[float, float], write: Callable[[float], str]) -> str:
    low, high = map(write, ends)
    return "" if low == high else f"{low} to {high}"
