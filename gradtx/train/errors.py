"""Errors of training runs that the user can correct."""

import importlib
from types import ModuleType


class TrainingError(Exception):
    """A run cannot start or continue; the command prints the message, without a traceback."""


class DataError(TrainingError):
    """The data are missing, damaged, or inconsistent."""


class CheckpointError(TrainingError):
    """A checkpoint is missing or damaged, or belongs to another run."""


class DivergenceError(TrainingError):
    """The loss or the parameters are no longer finite.

    Attributes:
      step: the first such step, counted from 1 over the whole run.
      epoch: the epoch of that step, counted from 1.
    """

    def __init__(self, message: str, *, step: int, epoch: int) -> None:
        super().__init__(message)
        self.step = step
        self.epoch = epoch


def extra(module: str, purpose: str) -> ModuleType:
    """Imports a module of the optional dependencies `demo`.

    Args:
      module: the module's name.
      purpose: its purpose, for the message: the words that follow "is needed".

    Returns:
      The module.

    Raises:
      TrainingError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TrainingError(
            f"{module} is needed {purpose}, and cannot be imported ({error}): "
            "pip install 'gradtx[demo]'"
        ) from None
