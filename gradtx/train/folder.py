"""The files of a run."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from gradtx.state.counts import check_counts
from gradtx.train import checkpoint
from gradtx.train.curves import curves_png
from gradtx.train.decoding import decode
from gradtx.train.epoch import TrainState
from gradtx.train.errors import CheckpointError, TrainingError
from gradtx.train.files import locked, write_atomically
from gradtx.train.loop import Progress, Row
from gradtx.train.options import Options


class EarlierRate(NamedTuple):
    """A peak learning rate that was replaced when the run was resumed.

    Attributes:
      until: the number of epochs that were trained when it was replaced.
      learning_rate: the rate.
    """

    until: int
    learning_rate: float


class _Config(NamedTuple):
    options: Options
    data: str
    versions: dict[str, str]
    device: str
    earlier_rates: tuple[EarlierRate, ...] = ()


class _Extra(NamedTuple):
    """The metadata of a run's checkpoint."""

    config: _Config
    history: tuple[Row, ...]


class RunFolder:
    """A folder with `checkpoint.npz`, `metrics.jsonl` and `curves.png`.

    The checkpoint is authoritative. It includes the history, and is written before
    `metrics.jsonl`, which is rewritten from it when a run is resumed or ends. So no epoch is lost
    or duplicated, whenever the run is killed.

    Args:
      path: the folder, which need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.npz"
        self.metrics = self.path / "metrics.jsonl"
        self.curves = self.path / "curves.png"

    def existing(self) -> list[Path]:
        """Returns the files of a run that exist."""
        return [p for p in (self.checkpoint, self.metrics, self.curves) if p.exists()]

    def locked(self) -> AbstractContextManager[None]:
        """Locks the folder, which is created if necessary, so that no other run writes in it.

        Raises:
          TrainingError: another run writes in it, or it cannot be created.
        """
        return locked(self.path, {p.name for p in (self.checkpoint, self.metrics, self.curves)})

    def clear(self) -> None:
        """Deletes the files of an earlier run."""
        for path in self.existing():
            path.unlink()

    def save(self, progress: Progress, config: Mapping[str, Any]) -> None:
        """Writes the checkpoint.

        Args:
          progress: the state and the history of the run.
          config: the configuration of the run.
        """
        history = [row._asdict() for row in progress.history]
        extra = {"config": dict(config), "history": history}
        checkpoint.save(self.checkpoint, progress.state._asdict(), extra)

    def config(self) -> dict[str, Any]:
        """Reads the configuration of the run from the checkpoint.

        Raises:
          CheckpointError: the checkpoint is missing or damaged, or not that of a training run.
        """
        extra = checkpoint.read_extra(self.checkpoint)
        self._decoded(extra)
        return extra["config"]

    def restore(self, template: TrainState) -> Progress:
        """Reads the checkpoint.

        Args:
          template: the shapes and dtypes of parameters and state.

        Raises:
          CheckpointError: the checkpoint is missing or damaged, or does not fit `template`.
        """
        leaves, extra = checkpoint.restore(self.checkpoint, template._asdict())
        state = TrainState(**leaves)
        try:
            check_counts(state)
        except ValueError as error:
            raise CheckpointError(f"{self.checkpoint}: {error}") from None
        return Progress(state, self._decoded(extra).history)

    def _decoded(self, extra: Mapping[str, Any]) -> _Extra:
        try:
            decoded = decode(_Extra, extra, "header.extra")
        except (ValueError, TrainingError) as error:
            raise CheckpointError(
                f"{self.checkpoint}: not the checkpoint of a run: {error}"
            ) from None
        epochs = [row.epoch for row in decoded.history]
        if epochs != [*range(1, len(epochs) + 1)]:
            raise CheckpointError(
                f"{self.checkpoint}: the history must have the epochs 1 to {len(epochs)}, got "
                f"{epochs}"
            )
        return decoded

    def append(self, row: Row) -> None:
        """Adds an epoch to `metrics.jsonl`.

        Args:
          row: the measurements.
        """
        with self.metrics.open("a") as file:
            file.write(_line(row))

    def rewrite_metrics(self) -> tuple[Row, ...]:
        """Writes `metrics.jsonl` from the checkpoint, and returns the history."""
        history = self._decoded(checkpoint.read_extra(self.checkpoint)).history
        write_atomically(self.metrics, "".join(map(_line, history)).encode())
        return history

    def finish(self, title: str) -> None:
        """Writes `metrics.jsonl` and `curves.png` from the checkpoint.

        Args:
          title: the title of the curves.
        """
        history = self.rewrite_metrics()
        if history:
            write_atomically(self.curves, curves_png(history, title))


def _line(row: Row) -> str:
    return json.dumps(row._asdict(), allow_nan=False) + "\n"
