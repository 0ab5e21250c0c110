"""Schedules with a record of how they were made, so that they can be compiled and compared."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec

from gradtx._arguments import NUMBER, Requirements
from gradtx.engine.base import Scalar, Schedule
from gradtx.engine.equality import Value
from gradtx.engine.made import Freezer, Frozen, Made, call_of

P = ParamSpec("P")


class MadeSchedule(Value):
    """A schedule with a record of how it was made.

    Args:
      schedule: the function of the step count.
      made: the call that returned it.
    """

    def __init__(self, schedule: Schedule, made: Made):
        self._schedule, self._made = schedule, made
        functools.update_wrapper(self, schedule, updated=())

    def __call__(self, count: Scalar) -> Scalar:
        """Returns the value at a step."""
        return self._schedule(count)

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns its frozen value."""
        return freezer.schedule(self._made)


def known_schedule(factory: Callable[P, Schedule]) -> Callable[P, Schedule]:
    """Decorates a factory of schedules so that these can be compiled, and arguments are checked.

    The check is that of their kinds, by the annotations; the factory checks their ranges, since
    names such as `decay_rate` have other ranges here than those of an optimizer's arguments.

    Args:
      factory: a function of hyperparameters that returns a pure function of the step count.

    Raises:
      TypeError: by the decorated function: an argument is of a wrong kind.
      ValueError: by the decorated function: a number is NaN.
    """
    signature = inspect.signature(factory)
    ranges = dict.fromkeys(signature.parameters, NUMBER)
    requirements = Requirements(factory, factory.__name__, ranges, schedulable=False)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        requirements.check(args, kwargs)
        schedule = factory(*args, **kwargs)
        return MadeSchedule(schedule, call_of(signature, factory, args, kwargs, ()))

    return make
