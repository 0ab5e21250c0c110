"""What can go wrong in a training run that a person can put right."""

import importlib
from typing import Any


class TrainingError(Exception):
    """A run cannot start or go on; the message says why, and is all that the command prints."""


class DataError(TrainingError):
    """The data are missing, damaged, or do not fit together."""


class CheckpointError(TrainingError):
    """A checkpoint is missing or damaged, or belongs to another run."""


class DivergenceError(TrainingError):
    """The loss or the parameters are no longer finite.

    Attributes:
      step: the first step at which that was so, counted from 1 over the whole run.
      epoch: the epoch of that step, counted from 1.
    """

    def __init__(self, message: str, *, step: int, epoch: int) -> None:
        super().__init__(message)
        self.step = step
        self.epoch = epoch


def extra(module: str, purpose: str) -> Any:
    """Imports a module of the extra `demo`, or says how to install it.

    Args:
      module: the module's name.
      purpose: what it is needed for, to follow "needed".

    Raises:
      TrainingError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TrainingError(
            f"{module} is needed {purpose}, and cannot be imported ({error}): "
            "pip install 'gradtx[demo]'"
        ) from None
