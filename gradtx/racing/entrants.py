"""The entrants of a race and their learning rates."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gradtx import catalog
from gradtx._arguments import described
from gradtx.engine.base import GradientTransformation, Scalar
from gradtx.train.errors import TrainingError
from gradtx.train.optimizer import default_learning_rate
from gradtx.train.settings import options_of

USUAL = tuple(10 ** (power / 2) for power in range(-4, 5))
"""The default rates, as multiples of the optimizer's usual rate."""

SCALE_FREE = tuple(10 ** (power / 2) for power in range(-2, 3))
"""The same for learning-rate-free optimizers."""

WIDENINGS, ADDED = 4, 3
"""How often the rates of an entrant are widened at most, and by how many rates each time."""

Factory = Callable[[Scalar], GradientTransformation]
"""A function from a learning rate to an optimizer, such as `gradtx.adam`."""


class Entrant(NamedTuple):
    """An optimizer in a race.

    Attributes:
      name: its name in the results.
      make: the optimizer, as a function of its learning rate.
      rates: its learning rates, in ascending order.
      widen: whether the race adds rates while the best one is the smallest or the largest; see
        `wider`. Default: no.
    """

    name: str
    make: Factory
    rates: tuple[float, ...]
    widen: bool = False


def rate_range(low: float, high: float, count: int) -> tuple[float, ...]:
    """Returns geometrically spaced learning rates, including both ends.

    Args:
      low: the smallest rate, positive.
      high: the largest rate.
      count: the number of rates, at least 2.

    Raises:
      TrainingError: an argument is out of range.

    Example:
      >>> from gradtx.racing import rate_range
      >>> rate_range(0.001, 0.1, 5)
      (0.001, 0.00316228, 0.01, 0.0316228, 0.1)
    """
    if not (0 < low < high < math.inf and count >= 2):
        raise TrainingError(
            "a range of rates must have 0 < low < high and at least 2 rates, got "
            f"{count} from {low:g} to {high:g}"
        )
    return tuple(_short(rate) for rate in np.geomspace(low, high, count))


def usual_rates(name: str) -> tuple[float, ...]:
    """Returns the default rates of an optimizer of the catalog.

    They are half a decade apart, from 1/100 to 100 times the rate of
    `gradtx.train.default_learning_rate`, or from 1/10 to 10 times it for learning-rate-free
    optimizers (those with `scale_free` in the catalog).

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


def wider(rates: Sequence[float], edge: str) -> tuple[float, ...]:
    """Returns the rates that continue a range beyond one of its ends.

    They are three, in the mean ratio of the range's rates.

    Args:
      rates: the range, at least two rates in ascending order.
      edge: "low" or "high".

    Example:
      >>> from gradtx.racing.entrants import wider
      >>> wider((0.01, 0.1, 1.0), "low"), wider((0.01, 0.1, 1.0), "high")
      ((1e-05, 0.0001, 0.001), (10.0, 100.0, 1000.0))
    """
    ratio = (rates[-1] / rates[0]) ** (1 / (len(rates) - 1))
    powers = range(1, ADDED + 1)
    if edge == "low":
        return tuple(_short(rates[0] / ratio**power) for power in reversed(powers))
    return tuple(_short(rates[-1] * ratio**power) for power in powers)


def _short(rate: float) -> float:
    return float(f"{rate:.6g}")


def enter(
    optimizers: Iterable[str] | Mapping[str, str | Factory],
    learning_rates: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
) -> list[Entrant]:
    """Returns the entrants of a race.

    Args:
      optimizers: names of the catalog, or a mapping from any names to names of the catalog or to
        functions from a learning rate to an optimizer, such as `gradtx.adam`.
      learning_rates: the rates of all optimizers except learning-rate-free ones, which keep
        `usual_rates`; or a mapping from names to rates, for some or all of them. Default:
        `usual_rates`, and nine rates from 1e-4 to 1 for functions that are not in the catalog. The
        race may widen these.

    Raises:
      TrainingError: a name is unknown, a value is not a function of the learning rate, or rates
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
        if odd := next((x for x in names if not isinstance(x, str)), None):
            raise TrainingError(
                f"race: optimizers must be names of the catalog, got {described(odd)}; name others "
                'in a mapping, such as {"mine": lambda rate: gradtx.sgd(rate, 0.9)}'
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise TrainingError(f"race: {twice!r} is given twice")
        optimizers = {name: name for name in names}
    if not optimizers:
        raise TrainingError("race: no optimizer is given")
    given = learning_rates if isinstance(learning_rates, Mapping) else {}
    common = None if isinstance(learning_rates, Mapping) else learning_rates
    unknown = [name for name in given if name not in optimizers]
    if unknown:
        raise TrainingError(
            f"race: learning rates are given for {unknown[0]!r}, but the optimizers are "
            f"{', '.join(optimizers)}"
        )
    field = []
    for name, what in optimizers.items():
        entry, make = _resolve(name, what)
        rates = given.get(name)
        if rates is None and not (entry is not None and entry.scale_free):
            rates = common
        if rates is None:
            usual = rate_range(1e-4, 1.0, 9) if entry is None else usual_rates(entry.name)
            field.append(Entrant(name, make, usual, widen=True))
        else:
            field.append(Entrant(name, make, _checked(name, rates)))
    return field


def _resolve(name: str, what: str | Factory) -> tuple[catalog.Entry | None, Factory]:
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
            f"race: {name!r} must be a name of the catalog or a function from a learning rate to "
            f"an optimizer, such as gradtx.adam, got a {type(what).__name__}"
        )
    # Arguments without a default get the values of the catalog's probe.
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
        raise TrainingError(
            f"race: {name}'s learning rates must be numbers, got {rates!r}"
        ) from None
    if not numbers or not all(0 < rate < math.inf for rate in numbers):
        raise TrainingError(
            f"race: {name}'s learning rates must be positive numbers, at least one, got {numbers}"
        )
    if len(set(numbers)) < len(numbers):
        raise TrainingError(f"race: {name}'s learning rates must differ, got {numbers}")
    return tuple(numbers)
