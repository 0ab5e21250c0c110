"""What a race gives: every run, and the standings."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from gradtx.table import text_table


class Row(NamedTuple):
    """One run: an optimizer with one learning rate and one seed.

    Attributes:
      optimizer: its name.
      learning_rate: the rate.
      seed: the seed of the initial parameters and of the order of the examples.
      steps: the steps taken at each measurement; the first is 0.
      loss: the loss on all the examples there; infinity where it was not finite.
      accuracy: the accuracy there, from 0 to 1; `None` if none is measured.
      seconds: the run's share of the time that its grid took, without compilation.
      compile_seconds: its share of the time that tracing and compiling the grid took.
    """

    optimizer: str
    learning_rate: float
    seed: int
    steps: tuple[int, ...]
    loss: tuple[float, ...]
    accuracy: tuple[float, ...] | None
    seconds: float
    compile_seconds: float

    @property
    def diverged(self) -> bool:
        """Whether the final loss is not finite."""
        return not math.isfinite(self.loss[-1])


class Standing(NamedTuple):
    """How an optimizer did with its best learning rate, that of the lowest median final loss.

    Attributes:
      optimizer: its name.
      learning_rate: the best rate.
      at_edge: "low" or "high" if that was the smallest or largest raced of several, otherwise "".
      loss: the median final loss over the seeds.
      loss_range: the smallest and the largest.
      accuracy: the median final accuracy; `None` if none is measured.
      accuracy_range: the smallest and the largest.
      steps_to_target: the median number of steps to the target, to the measurement at which it is
        seen first; infinity if it is not reached, `None` if there is no target.
      seconds_to_target: a run's share of the grid's time for these steps, without compilation.
      diverged: how many runs of the whole grid diverged.
      runs: how many there are in it.
    """

    optimizer: str
    learning_rate: float
    at_edge: str
    loss: float
    loss_range: tuple[float, float]
    accuracy: float | None
    accuracy_range: tuple[float, float] | None
    steps_to_target: float | None
    seconds_to_target: float | None
    diverged: int
    runs: int


@dataclasses.dataclass(frozen=True)
class Race:
    """The results of a race.

    Attributes:
      rows: every run, by optimizer in the order of entry, then by learning rate, then by seed.
      target: the accuracy to be reached, or the loss where no accuracy is measured; `None` for no
        target.
      title: what was raced on, for the pictures.
    """

    rows: tuple[Row, ...]
    target: float | None = None
    title: str = ""

    @property
    def optimizers(self) -> list[str]:
        """The optimizers' names, in the order of entry."""
        return list(dict.fromkeys(row.optimizer for row in self.rows))

    def runs_of(self, optimizer: str, learning_rate: float | None = None) -> list[Row]:
        """Gives the runs of an optimizer.

        Args:
          optimizer: its name.
          learning_rate: one of its rates. Default: all of them.
        """
        return [
            row
            for row in self.rows
            if row.optimizer == optimizer and learning_rate in (None, row.learning_rate)
        ]

    def rates_of(self, optimizer: str) -> list[float]:
        """Gives the learning rates of an optimizer, rising.

        Args:
          optimizer: its name.
        """
        return sorted({row.learning_rate for row in self.runs_of(optimizer)})

    def standings(self) -> list[Standing]:
        """Gives how each optimizer did with its best rate, the best optimizer first."""
        return sorted(map(self._standing, self.optimizers), key=lambda s: s.loss)

    def _standing(self, name: str) -> Standing:
        rates = self.rates_of(name)
        # Where all diverge, the smallest rate stands for them.
        best = min(rates, key=lambda rate: _median(r.loss[-1] for r in self.runs_of(name, rate)))
        rows = self.runs_of(name, best)
        losses = [row.loss[-1] for row in rows]
        scores = [row.accuracy[-1] for row in rows if row.accuracy is not None]
        steps = seconds = None
        if self.target is not None:
            found = [_reached(row, self.target) for row in rows]
            steps = _median(found)
            each = (r.seconds * n / r.steps[-1] for r, n in zip(rows, found, strict=True))
            seconds = _median(each)
        return Standing(
            optimizer=name,
            learning_rate=best,
            at_edge={rates[0]: "low", rates[-1]: "high"}.get(best, "") if len(rates) > 1 else "",
            loss=_median(losses),
            loss_range=(min(losses), max(losses)),
            accuracy=_median(scores) if scores else None,
            accuracy_range=(min(scores), max(scores)) if scores else None,
            steps_to_target=steps,
            seconds_to_target=seconds,
            diverged=sum(row.diverged for row in self.runs_of(name)),
            runs=len(self.runs_of(name)),
        )

    def table(self) -> str:
        """Writes the leaderboard: each optimizer with its best rate, medians and ranges over seeds.

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
        header, align = ["", "optimizer", "best rate", "loss", "range"], "r  rr"
        if scored:
            header, align = [*header, "accuracy", "range"], align + "rr"
        if self.target is not None:
            goal = f"{self.target:.4g}" if not scored else f"{100 * self.target:.4g} %"
            header, align = [*header, f"steps to {goal}", "seconds"], align + "rr"
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
        return "\n".join([text_table(header, rows, align), *self._notes(standings)])

    def _notes(self, standings: list[Standing]) -> list[str]:
        return [
            f"{_EDGE[edge].strip()} the {word} rate raced: try {more} ones"
            for edge, word, more in (("low", "smallest", "smaller"), ("high", "largest", "larger"))
            if any(s.at_edge == edge for s in standings)
        ]

    def curves(self) -> Any:
        """Draws the loss by step: each optimizer with its best rate, the median over the seeds in a
        band from the lowest to the highest.

        Returns:
          A matplotlib figure, made without pyplot.

        Raises:
          TrainingError: matplotlib is not installed.
        """
        from gradtx.race.pictures import draw_curves  # which builds on this module

        return draw_curves(self)

    def rates(self) -> Any:
        """Draws the final loss by learning rate, median and band as in `curves`.

        Returns:
          A matplotlib figure, made without pyplot.

        Raises:
          TrainingError: matplotlib is not installed.
        """
        from gradtx.race.pictures import draw_rates

        return draw_rates(self)


_EDGE = {"": "", "low": " <", "high": " >"}


def _median(values: Any) -> float:
    values = np.sort(list(values))
    middle = values[[(len(values) - 1) // 2, len(values) // 2]]
    return float(middle.mean())


def _reached(row: Row, target: float) -> float:
    """The steps after which a run is first seen at the target."""
    if row.accuracy is not None:
        there = [score >= target for score in row.accuracy]
    else:
        there = [loss <= target for loss in row.loss]
    return next((float(n) for n, yes in zip(row.steps, there, strict=True) if yes), math.inf)


def _loss(loss: float) -> str:
    return f"{loss:.3g}"


def _range(ends: tuple[float, float], write: Any) -> str:
    low, high = map(write, ends)
    return "" if low == high else f"{low} to {high}"
