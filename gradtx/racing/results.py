"""The results of a race as numbers: all runs, and the standings."""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """A run: an optimizer with one learning rate and one seed.

    Attributes:
      optimizer: its name.
      learning_rate: the rate.
      seed: the seed of the initial parameters and of the order of the examples.
      steps: the number of steps before each measurement; the first is 0.
      loss: the loss on all training examples, by measurement; infinity where it is not finite.
      accuracy: the accuracy, from 0 to 1, by measurement; `None` if it is not measured.
      seconds: the run's share of its grid's time, without compilation.
      compile_seconds: the run's share of the time for tracing and compiling the grid.
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
        """True if the final loss is not finite."""
        return not math.isfinite(self.loss[-1])


class Standing(NamedTuple):
    """The result of an optimizer at its best learning rate, the one with the lowest median loss.

    Attributes:
      optimizer: its name.
      learning_rate: the best rate.
      at_edge: "low" or "high" if this is the smallest or largest of several rates, otherwise "".
      loss: the median final loss over the seeds.
      loss_range: the smallest and the largest final loss.
      accuracy: the median final accuracy; `None` if it is not measured.
      accuracy_range: the smallest and the largest final accuracy.
      steps_to_target: the median number of steps before the first measurement at the target;
        infinity if it is not reached, `None` if there is no target.
      seconds_to_target: a run's share of the grid's time for these steps, without compilation.
      diverged: the number of diverged runs in the whole grid.
      runs: the number of runs in the whole grid.
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
class Results:
    """The runs of a race and their standings.

    Attributes:
      rows: all runs, by optimizer in the order given, then by learning rate, then by seed.
      target: the target accuracy, or the target loss if no accuracy is measured; `None` for no
        target. Default: `None`.
      title: the problem, for the titles of figures. Default: none.
      unit: the unit of the loss. Default: none.
    """

    rows: tuple[Row, ...]
    target: float | None = None
    title: str = ""
    unit: str = ""

    @property
    def optimizers(self) -> list[str]:
        """The names of the optimizers, in the order given."""
        return list(dict.fromkeys(row.optimizer for row in self.rows))

    def runs_of(self, optimizer: str, learning_rate: float | None = None) -> list[Row]:
        """Returns the runs of an optimizer.

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
        """Returns the learning rates of an optimizer in ascending order.

        Args:
          optimizer: its name.
        """
        return sorted({row.learning_rate for row in self.runs_of(optimizer)})

    def standings(self) -> list[Standing]:
        """Returns each optimizer's result with its best rate, the best optimizer first."""
        return sorted(map(self._standing, self.optimizers), key=lambda s: s.loss)

    def _standing(self, name: str) -> Standing:
        rates = self.rates_of(name)
        # If all diverge, `min` chooses the smallest rate.
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


def _median(values: Iterable[float]) -> float:
    ordered = np.sort(list(values))
    middle = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]]
    return float(middle.mean())


def _reached(row: Row, target: float) -> float:
    """Returns the number of steps before a run's first measurement at the target."""
    if row.accuracy is not None:
        there = [score >= target for score in row.accuracy]
    else:
        there = [loss <= target for loss in row.loss]
    return next((float(n) for n, yes in zip(row.steps, there, strict=True) if yes), math.inf)
