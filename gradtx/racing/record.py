"""The file of a race: JSON lines, first the configuration and then one line for each run."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gradtx._arguments import counted
from gradtx.racing.results import Row
from gradtx.train.decoding import decode, parse_json
from gradtx.train.errors import TrainingError
from gradtx.train.files import locked, reading, write_atomically


class _Head(NamedTuple):
    """The first line: the configuration, the number of the other lines, and a checksum of all."""

    race: dict[str, Any]
    rows: int
    sha256: str


class Record:
    """Writes and reads `race.jsonl`.

    The first line has the configuration of the race, the number of runs and a SHA-256 of all lines;
    each other line has the fields of a `Row`. JSON has no infinity, so the losses of diverged runs
    are `null`. The file is rewritten atomically whenever an optimizer is finished, so it is
    complete even if the race is killed, and has all rates and seeds of each optimizer in it.

    Args:
      folder: the folder of the file.
      config: the configuration of the race, of JSON's types, with `seeds`, a list, and `epochs`.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "race.jsonl"
        self.config = json.loads(json.dumps(dict(config)))  # as it is read from the file

    @contextmanager
    def begin(self, overwrite: bool) -> Iterator[list[Row]]:
        """Locks the folder, which is created if necessary, and yields the finished runs.

        Args:
          overwrite: whether to discard the finished runs.

        Raises:
          TrainingError: the folder cannot be created, another run writes in it, or the file is
            damaged or belongs to another race.
        """
        with locked(self.folder, {"race.jsonl", "curves.png", "rates.png"}):
            yield [] if overwrite or not self.path.exists() else self._rows()

    def _rows(self) -> list[Row]:
        damage = "not the record of a race, or damaged (to discard it: overwrite)"
        with reading(self.path, TrainingError, damage) as file:
            text = file.read().decode()
            if not text.endswith("\n"):
                raise ValueError("its last line is not complete")
            first, *lines = text[:-1].split("\n")
            head = decode(_Head, parse_json(first), "line 1")
            if len(lines) != head.rows:
                raise ValueError(
                    f"line 1 announces {counted(head.rows, 'run')}, the file has {len(lines)}"
                )
            if (computed := _digest(head.race, lines)) != head.sha256:
                raise ValueError(
                    f"its checksum is {computed[:16]}..., it should be {head.sha256[:16]}..."
                )
            differ = [
                f"{name} was {head.race.get(name)}, now {self.config.get(name)}"
                for name in {**head.race, **self.config}
                if head.race.get(name) != self.config.get(name)
            ]
            if differ:
                raise TrainingError(
                    f"{self.path} has another race: {'; '.join(differ)}; overwrite it, or choose "
                    "another folder"
                )
            rows = [_row(parse_json(line), f"line {i}") for i, line in enumerate(lines, 2)]
            _check_grids(rows, self.config["seeds"], self.config["epochs"])
            return rows

    def save(self, rows: Sequence[Row]) -> None:
        """Writes the file.

        Args:
          rows: all finished runs.
        """
        lines = [_line(row) for row in rows]
        head = _Head(self.config, len(lines), _digest(self.config, lines))
        text = [json.dumps(head._asdict()), *lines]
        write_atomically(self.path, "".join(f"{line}\n" for line in text).encode())


def _digest(config: Mapping[str, Any], lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([json.dumps(config), *lines]).encode()).hexdigest()


def _line(row: Row) -> str:
    losses = [loss if math.isfinite(loss) else None for loss in row.loss]
    return json.dumps({**row._asdict(), "loss": losses}, allow_nan=False)


def _row(value: Any, name: str) -> Row:
    fields = decode(dict[str, Any], value, name)
    losses = decode(tuple[float | None, ...], fields.get("loss"), f"{name}.loss")
    row = decode(Row, {**fields, "loss": []}, name)
    return row._replace(loss=tuple(math.inf if loss is None else loss for loss in losses))


def _check_grids(rows: Sequence[Row], seeds: Sequence[int], epochs: int) -> None:
    """Checks that each optimizer has all its runs, and each run all its measurements."""
    for row in rows:
        lengths = {len(x) for x in (row.steps, row.loss, row.accuracy) if x is not None}
        ascend = [*row.steps] == sorted({*row.steps}) and row.steps[:1] == (0,)
        if lengths != {epochs + 1} or not ascend:
            raise ValueError(
                f"{row.optimizer}: a run must have {epochs + 1} measurements at ascending steps "
                f"from 0, got {counted(len(row.loss), 'loss', 'losses')} at the steps {row.steps}"
            )
    for name in dict.fromkeys(row.optimizer for row in rows):
        found = [(row.learning_rate, row.seed) for row in rows if row.optimizer == name]
        needed = [*itertools.product(sorted({rate for rate, _ in found}), seeds)]
        for has, must in itertools.zip_longest(found, needed):
            if has != must:
                raise ValueError(
                    f"{name} must have a run for each of its rates and the seeds {seeds}, in this "
                    f"order: got (rate, seed) {has} instead of {must}"
                )
