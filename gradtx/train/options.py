"""The options of a run."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from gradtx._arguments import near
from gradtx.train.errors import TrainingError
from gradtx.train.models import MODELS
from gradtx.train.schedules import SCHEDULES


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a run: two runs with equal options end with the same parameters.

    Attributes:
      data: `"digits"`, a folder with MNIST's IDX files, or a `.npz` file. Default: `"digits"`.
      model: a name in `MODELS`. Default: `"mlp"`.
      optimizer: a name in the catalog. Default: `"adam"`.
      set: hyperparameters of the optimizer. Default: none.
      learning_rate: the peak learning rate, positive. Default: `None`, for `default_learning_rate`.
      schedule: a name in `SCHEDULES`. Default: `"constant"`.
      schedule_set: settings of the schedule. Default: none.
      batch: the number of examples in a mini-batch, or `"full"` for all of them. Default: 64.
      epochs: the number of epochs. Default: 30.
      seed: the seed of the initial parameters and of the shuffling, from 0 to 2**31 - 1.
        Default: 0.
      weight_decay: the weight decay, not negative. Default: `None`, for the optimizer's own.
      clip: the largest global norm of the gradient, positive. Default: `None`, no clipping.

    Raises:
      TrainingError: a value is out of range, or a name is unknown; the message suggests a similar
        one.
    """

    data: str = "digits"
    model: str = "mlp"
    optimizer: str = "adam"
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    learning_rate: float | None = None
    schedule: str = "constant"
    schedule_set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch: int | Literal["full"] = 64
    epochs: int = 30
    seed: int = 0
    weight_decay: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        one_of("model", self.model, MODELS)
        one_of("schedule", self.schedule, SCHEDULES)
        full = self.batch == "full"
        _require(full or _whole(self.batch, 1), "batch", self.batch, "a positive integer or 'full'")
        _require(_whole(self.epochs, 1), "epochs", self.epochs, "an integer of at least 1")
        _require(
            _whole(self.seed, 0) and self.seed < 2**31,
            "seed",
            self.seed,
            "an integer from 0 to 2147483647",
        )
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            _require(value is None or 0 < value < math.inf, name, value, "a positive number")
        decay = self.weight_decay
        right = decay is None or 0 <= decay < math.inf
        _require(right, "weight_decay", decay, "a number of at least 0")

    @property
    def title(self) -> str:
        """The names of data, model and optimizer, for titles."""
        return f"{Path(self.data).stem} · {self.model} · {self.optimizer}"

    @property
    def folder(self) -> Path:
        """The default folder of the run."""
        return Path("runs") / f"{Path(self.data).stem}-{self.model}-{self.optimizer}"


def flag(name: str) -> str:
    """Returns the command-line option of a field: `--learning-rate` for `learning_rate`."""
    return "--" + name.replace("_", "-")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(right: bool, name: str, value: Any, what: str) -> None:
    if not right:
        raise TrainingError(f"{flag(name)} must be {what}, got {value}")


def one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Checks that the value of an option is one of those that there are.

    Args:
      name: the option's name.
      value: its value.
      known: the values that there are.

    Raises:
      TrainingError: it is none of them; the message suggests a similar one.

    Example:
      >>> from gradtx.train.options import one_of
      >>> one_of("model", "mpl", ["mlp", "softmax"])
      Traceback (most recent call last):
      ...
      gradtx.train.errors.TrainingError: --model 'mpl' is not one of mlp, softmax; did ...
    """
    known = list(known)
    if value not in known:
        similar = near(value, known)
        hint = f"; did you mean {similar[0]!r}?" if similar else ""
        raise TrainingError(f"{flag(name)} {value!r} is not one of {', '.join(known)}{hint}")
