"""What defines a run."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gradtx.train.errors import TrainingError
from gradtx.train.models import MODELS
from gradtx.train.schedules import SCHEDULES


@dataclasses.dataclass(frozen=True)
class Options:
    """What defines a run: two runs of the same options end with the same parameters.

    Attributes:
      data: `"digits"`, a folder with MNIST's IDX files, or a `.npz` file.
      model: a name in `MODELS`.
      optimizer: a name in the catalog.
      set: hyperparameters of the optimizer.
      learning_rate: its peak rate, positive; `None` for `default_learning_rate`.
      schedule: a name in `SCHEDULES`.
      schedule_set: settings of the schedule.
      batch: examples in a mini-batch, or `"full"` for all of them.
      epochs: how many epochs are trained.
      seed: of the initial parameters and the shuffling, from 0 to 2**31 - 1.
      weight_decay: its strength, not negative; `None` for the optimizer's own default.
      clip: the largest global norm of the gradient, positive; `None` for no clipping.

    Raises:
      TrainingError: a value is out of its range; the message offers near names.
    """

    data: str = "digits"
    model: str = "mlp"
    optimizer: str = "adam"
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    learning_rate: float | None = None
    schedule: str = "constant"
    schedule_set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch: int | str = 64
    epochs: int = 30
    seed: int = 0
    weight_decay: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        _one_of("model", self.model, MODELS)
        _one_of("schedule", self.schedule, SCHEDULES)
        full = self.batch == "full"
        _require(full or _whole(self.batch, 1), "batch", self.batch, "a positive number or 'full'")
        _require(_whole(self.epochs, 1), "epochs", self.epochs, "a whole number, at least 1")
        _require(
            _whole(self.seed, 0) and self.seed < 2**31, "seed", self.seed, "from 0 to 2147483647"
        )
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            _require(value is None or 0 < value < math.inf, name, value, "a positive number")
        decay = self.weight_decay
        right = decay is None or 0 <= decay < math.inf
        _require(right, "weight_decay", decay, "a number that is not negative")

    @property
    def title(self) -> str:
        """Data, model and optimizer in a few words."""
        return f"{Path(self.data).stem} · {self.model} · {self.optimizer}"

    @property
    def folder(self) -> Path:
        """Where the run is written if nobody says otherwise."""
        return Path("runs") / f"{Path(self.data).stem}-{self.model}-{self.optimizer}"


def flag(name: str) -> str:
    """Gives the command's option for a field: `--learning-rate` for `learning_rate`."""
    return "--" + name.replace("_", "-")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(right: bool, name: str, value: Any, what: str) -> None:
    if not right:
        raise TrainingError(f"{flag(name)} must be {what}, got {value}")


def _one_of(name: str, value: str, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TrainingError(f"{flag(name)} {value!r} is not one of {', '.join(known)}{hint}")
