"""The file of a race: JSON lines, first the configuration and then one line for each run."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradtx.racing.results import Row
from gradtx.train.errors import TrainingError
from gradtx.train.files import write_atomically


class Record:
    """Writes and reads `race.jsonl`.

    The first line is the configuration of the race, each other line has the fields of a `Row`.
    JSON has no infinity, so the losses of diverged runs are `null`. The file is rewritten
    atomically whenever an optimizer is finished, so it is complete even if the race is killed.

    Args:
      folder: the folder of the file; it is created if necessary.
      config: the configuration of the race.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]) -> None:
        self.path = Path(folder) / "race.jsonl"
        self.config = json.loads(json.dumps(dict(config)))  # as it is read from the file

    def begin(self, overwrite: bool) -> list[Row]:
        """Returns the runs that are finished already.

        Args:
          overwrite: whether to discard them.

        Raises:
          TrainingError: the folder cannot be created, or the file is damaged or belongs to another
            race.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{self.path.parent}: cannot create the folder: {error.strerror}"
            ) from None
        if overwrite or not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        try:
            config = json.loads(lines[0])["race"]
            rows = [_row(json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise TrainingError(f"{self.path}: not the record of a race: {error!r}") from None
        differ = [
            f"{name} was {config.get(name)}, now {self.config.get(name)}"
            for name in {**config, **self.config}
            if config.get(name) != self.config.get(name)
        ]
        if differ:
            raise TrainingError(f"{self.path} has another race: {'; '.join(differ)}")
        return rows

    def save(self, rows: Sequence[Row]) -> None:
        """Writes the file.

        Args:
          rows: all finished runs.
        """
        lines = [json.dumps({"race": self.config}), *map(_line, rows)]
        write_atomically(self.path, "".join(f"{line}\n" for line in lines).encode())


def _line(row: Row) -> str:
    losses = [loss if math.isfinite(loss) else None for loss in row.loss]
    return json.dumps({**row._asdict(), "loss": losses}, allow_nan=False)


def _row(fields: Mapping[str, Any]) -> Row:
    accuracy = fields["accuracy"]
    return Row(
        **{
            **fields,
            "steps": tuple(fields["steps"]),
            "loss": tuple(math.inf if loss is None else loss for loss in fields["loss"]),
            "accuracy": None if accuracy is None else tuple(accuracy),
        }
    )
