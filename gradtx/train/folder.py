"""The files of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradtx.train import checkpoint
from gradtx.train.curves import curves_png
from gradtx.train.epoch import TrainState
from gradtx.train.errors import TrainingError
from gradtx.train.loop import Progress, Row


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

    def create(self) -> None:
        """Creates the folder, and deletes the files of an earlier run in it.

        Raises:
          TrainingError: it cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{self.path}: cannot create the folder: {error.strerror}"
            ) from None
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
        """Reads the configuration of the run from the checkpoint."""
        return checkpoint.read_extra(self.checkpoint)["config"]

    def restore(self, template: TrainState) -> Progress:
        """Reads the checkpoint.

        Args:
          template: the shapes and dtypes of parameters and state.
        """
        state, extra = checkpoint.restore(self.checkpoint, template._asdict())
        return Progress(TrainState(**state), tuple(Row(**row) for row in extra["history"]))

    def append(self, row: Row) -> None:
        """Adds an epoch to `metrics.jsonl`.

        Args:
          row: the measurements.
        """
        with self.metrics.open("a") as file:
            file.write(_line(row))

    def rewrite_metrics(self) -> tuple[Row, ...]:
        """Writes `metrics.jsonl` from the checkpoint, and returns the history."""
        rows = checkpoint.read_extra(self.checkpoint)["history"]
        history = tuple(Row(**row) for row in rows)
        checkpoint.write_atomically(self.metrics, "".join(map(_line, history)).encode())
        return history

    def finish(self, title: str) -> None:
        """Writes `metrics.jsonl` and `curves.png` from the checkpoint.

        Args:
          title: the title of the curves.
        """
        history = self.rewrite_metrics()
        if history:
            checkpoint.write_atomically(self.curves, curves_png(history, title))


def _line(row: Row) -> str:
    return json.dumps(row._asdict(), allow_nan=False) + "\n"
