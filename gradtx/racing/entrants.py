"""Who races, and with which learning rates."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradtx import catalog
from gradtx.engine.base import GradientTransformation
from gradtx.train.errors import TrainingError
from gradtx.train.optimizer import default_learning_rate
from gradtx.train.settings import options_of

USUAL = tuple(10 ** (power / 2) for power in range(-4, 5))
"""The default rates, as multiples of the rate that is usual for the optimizer."""

SCALE_FREE = tuple(10 ** (power / 2) for power in range(-2, 3))
"""The same for optimizers that find their step size themselves."""


class Entrant(NamedTuple):
    """An optimizer in a race.

    Attributes:
      name: what it is called in the results.
      make: the optimizer, as a function of its learning rate.
      rates: its learning rates, rising.
    """

    name: str
    make: Callable[[Any], GradientTransformation]
    rates: tuple[float, ...]


def rate_range(low: float, high: float, count: int) -> tuple[float, ...]:
    """Gives learning rates at equal ratios, both ends among them.

    Args:
      low: the smallest, positive.
      high: the largest.
      count: how many, at least 2.

    Raises:
      TrainingError: it is no such range.

    Example:
      >>> from gradtx.racing import rate_range
      >>> rate_range(0.001, 0.1, 5)
      (0.001, 0.00316228, 0.01, 0.0316228, 0.1)
    """
    if not (0 < low < high < math.inf and count >= 2):
        raise TrainingError(
            "a range of rates goes from a positive number to a larger one in at least 2 rates, got "
            f"{low:g} to {high:g} in {count}"
        )
    return tuple(_short(rate) for rate in np.geomspace(low, high, count))


def usual_rates(name: str) -> tuple[float, ...]:
    """Gives the rates that an optimizer of the catalog races with if none are given.

    They are half a decade apart, up to a hundred times more and less than the rate of
    `gradtx.train.default_learning_rate`; for those that find their step size themselves, ten times.

    Args:
      name: the optimizer's name in the catalog.

    Example:
      >>> from gradtx.racing import usual_rates
      >>> usual_rates("prodigy")
      (0.1, 0.316228, 1.0, 3.16228, 10.0)
    """
    default = default_learning_rate(name) or 1.0
    multiples = SCALE_FREE if catalog.get(name).scale_free else USUAL
    return tuple(_short(default * multiple) for multiple in multiples)


def _short(rate: float) -> float:
    return float(f"{rate:.6g}")


def enter(
    optimizers: Iterable[str] | Mapping[str, Any],
    learning_rates: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
) -> list[Entrant]:
    """Makes the field of a race.

    Args:
      optimizers: names of the catalog, or a mapping from names of one's own to names of the catalog
        or to functions of the learning rate that make an optimizer, such as `gradtx.adam`.
      learning_rates: the rates of all of them, but of those that find their step size themselves,
        which keep `usual_rates`; or a mapping from names to rates, for some or all of them.
        Default: `usual_rates`; for functions that the catalog does not know, from 1e-4 to 1.

    Raises:
      TrainingError: a name is unknown, something is not a function of the learning rate, or rates
        are not positive numbers.

    Example:
      >>> import gradtx
      >>> from gradtx.racing import enter
      >>> for entrant in enter({"heavy ball": lambda rate: gradtx.sgd(rate, 0.9), "dog": "dog"},
      ...                      [0.01, 0.1]):
      ...     print(entrant.name, entrant.rates)
      heavy ball (0.01, 0.1)
      dog (0.1, 0.316228, 1.0, 3.16228, 10.0)
    """
    if isinstance(optimizers, str):
        optimizers = [optimizers]
    if not isinstance(optimizers, Mapping):
        names = list(optimizers)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise TrainingError(f"race: {twice!r} is entered twice")
        optimizers = {name: name for name in names}
    if not optimizers:
        raise TrainingError("race: no optimizer is entered")
    given = learning_rates if isinstance(learning_rates, Mapping) else {}
    common = None if isinstance(learning_rates, Mapping) else learning_rates
    unknown = [name for name in given if name not in optimizers]
    if unknown:
        raise TrainingError(
            f"race: learning rates are given for {unknown[0]!r}, and those entered are "
            f"{', '.join(optimizers)}"
        )
    field = []
    for name, what in optimizers.items():
        entry, make = _resolve(name, what)
        rates = rate_range(1e-4, 1.0, 9) if entry is None else usual_rates(entry.name)
        if name in given:
            rates = given[name]
        elif common is not None and not (entry is not None and entry.scale_free):
            rates = common
        field.append(Entrant(name, make, _checked(name, rates)))
    return field


def _resolve(name: str, what: Any) -> tuple[catalog.Entry | None, Callable[[Any], Any]]:
    if isinstance(what, str):
        try:
            entry = catalog.get(what)
        except catalog.UnknownOptimizer as error:
            raise TrainingError(f"race: {error}") from None
    elif callable(what) and not isinstance(what, tuple):
        entry = next((e for e in catalog.entries() if e.factory is what), None)
        if entry is None:
            return None, what
    else:
        raise TrainingError(
            f"race: {name!r} is a {type(what).__name__}, and must be a name of the catalog or a "
            "function of the learning rate that makes an optimizer, such as gradtx.adam"
        )
    # What has no default must be given; the catalog knows values that work.
    needed = {
        key: entry.probe[key]
        for key, default in options_of(entry.factory).items()
        if default is inspect.Parameter.empty and key in entry.probe and key != entry.rate
    }
    return entry, lambda rate: entry.factory(**needed, **{entry.rate: rate})


def _checked(name: str, rates: Iterable[float]) -> tuple[float, ...]:
    try:
        numbers = sorted(float(rate) for rate in rates)
    except (TypeError, ValueError):
        raise TrainingError(f"race: {name}'s learning rates are {rates!r}, not numbers") from None
    if not numbers or not all(0 < rate < math.inf for rate in numbers):
        raise TrainingError(
            f"race: {name}'s learning rates must be positive numbers, at least one, got {numbers}"
        )
    if len(set(numbers)) < len(numbers):
        raise TrainingError(f"race: {name} has a learning rate twice: {numbers}")
    return tuple(numbers)
