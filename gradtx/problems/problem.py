"""Test problems, and the list of all."""

from collections.abc import Callable
from typing import NamedTuple

from gradtx.engine.base import Array


class Problem(NamedTuple):
    """A function of a vector, where to start from, and where its minima are.

    It is called like the function: `problem(x)`.

    Attributes:
      name: its name.
      fun: the function, from an array `[n]` to a scalar; in JAX, so that it has a gradient.
      start: the point that minimizers start from, `n` numbers.
      least: the least value, to the digits that are published; exact where it is 0.
      minima: the points with that value, as far as they are known in closed form or published.
      elsewhere: values of local minima that are not the least, to the digits that are published.
        Infinity stands for a descent that never ends.
      window: the part of the plane to draw: the ranges of `x[0]` and `x[1]`; `None` for more
        variables.
      source: the publication.
      saddles: the saddle points to be drawn. Default: none.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> booth = gradtx.problems.booth
      >>> print(booth(jnp.array(booth.start)), booth.least, booth.minima)
      104.0 0.0 ((1.0, 3.0),)
      >>> print(jnp.round(gradtx.minimize(booth, jnp.array(booth.start)).x, 3))
      [1. 3.]
    """

    name: str
    fun: Callable[[Array], Array]
    start: tuple[float, ...]
    least: float
    minima: tuple[tuple[float, ...], ...]
    elsewhere: tuple[float, ...]
    window: tuple[tuple[float, float], tuple[float, float]] | None
    source: str
    saddles: tuple[tuple[float, ...], ...] = ()

    def __call__(self, x: Array) -> Array:
        """Returns the function's value at `x`."""
        return self.fun(x)


PROBLEMS: dict[str, Problem] = {}
"""All problems, by name."""


def problem(
    source: str,
    *,
    start: tuple[float, ...],
    least: float = 0.0,
    minima: tuple[tuple[float, ...], ...] = (),
    elsewhere: tuple[float, ...] = (),
    window: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> Callable[[Callable[[Array], Array]], Problem]:
    """Registers a function as a `Problem` of the function's name.

    Args:
      source: the publication.
      start: where to start from.
      least: the least value. Default: 0.
      minima: the points with that value. Default: not known.
      elsewhere: values of other local minima. Default: none are known.
      window: the part of the plane to draw. Default: `None`, for functions of more variables.
    """

    def register(fun: Callable[[Array], Array]) -> Problem:
        made = Problem(fun.__name__, fun, start, least, minima, elsewhere, window, source)
        PROBLEMS[made.name] = made
        return made

    return register
