"""The check of axes."""

from collections.abc import Sequence

from gradtx._arguments.descriptions import counted


class MisfitError(ValueError):
    """An error: an argument does not fit an array. The message follows the array's name."""


def axes_within(
    axes: int | Sequence[int] | None, ndim: int, argument: str = "axis"
) -> tuple[int, ...]:
    """Returns axes of an array, counted from the front.

    Args:
      axes: the axis or axes, counted from the end if negative; `None` for all.
      ndim: the number of the array's axes.
      argument: the name of the axes in the error message. Default: "axis".

    Raises:
      MisfitError: the array has no such axis.

    Example:
      >>> from gradtx._arguments import axes_within
      >>> axes_within(-1, 2)
      (1,)
      >>> axes_within(2, 2)
      Traceback (most recent call last):
      ...
      gradtx._arguments.axes.MisfitError: has 2 axes, so axis must be from -2 to 1, got 2
    """
    if axes is None:
        return tuple(range(ndim))
    given = tuple(axes) if isinstance(axes, Sequence) else (axes,)
    if any(not -ndim <= axis < ndim for axis in given):
        told = f"must be from {-ndim} to {ndim - 1}" if ndim else "must be empty"
        has = counted(ndim, "axis", "axes")
        raise MisfitError(f"has {has}, so {argument} {told}, got {axes}")
    return tuple(axis % ndim for axis in given)
