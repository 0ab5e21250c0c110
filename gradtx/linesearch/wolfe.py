"""A search for the strong Wolfe conditions, evaluation by evaluation, on scalars along a ray."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.scalars import finished


class Point(NamedTuple):
    """A rate that was tried, the loss there, and the slope along the ray."""

    rate: Array
    value: Array
    slope: Array


class Limits(NamedTuple):
    """The hyperparameters of a search, see `scale_by_zoom_linesearch`.

    `approx_slope_rtol` is `2 * slope_rtol - 1`, and `approx_dec_rtol` may be `None`.
    """

    steps: Scalar
    rate: Scalar
    tol: Scalar
    increase_factor: Scalar
    slope_rtol: Scalar
    approx_slope_rtol: Scalar
    curv_rtol: Scalar
    approx_dec_rtol: Scalar | None
    precision: Scalar


class Search(NamedTuple):
    """The state of a search.

    Attributes:
      done: whether it is over.
      steps: the number of evaluations so far.
      rate: the rate to try next.
      low: the best point so far that decreases the loss sufficiently; at first the ray's origin.
      high: the other end of the interval that holds a solution; at infinity until an end is known.
      third: the end of the interval that was replaced last, for interpolation.
      chosen: the point that is chosen if the search ends now.
      grad: the gradient there.
      decrease_error: the violation of the condition of sufficient decrease at the chosen point.
      curvature_error: the violation of the curvature condition there.
    """

    done: Array
    steps: Array
    rate: Array
    low: Point
    high: Point
    third: Point
    chosen: Point
    grad: PyTree
    decrease_error: Array
    curvature_error: Array


@compiled_when_concrete
def begin(
    value: Scalar, slope: Array, grad: PyTree, guess: Scalar | None, limits: Limits
) -> Search:
    """Returns the search before its first evaluation; the step of rate 0 is chosen.

    Args:
      value: the loss at the ray's origin.
      slope: its slope there.
      grad: its gradient there.
      guess: the rate to try first, or `None` for 1.
      limits: the hyperparameters.
    """
    dtype = slope.dtype
    zero, infinite = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
    one = jnp.ones((), dtype)
    origin = Point(zero, jnp.asarray(value, dtype), slope)
    nowhere = Point(infinite, infinite, zero)
    # A failed search may leave the rate 0, which could not grow.
    rate = one if guess is None else jnp.where(guess > 0, guess, one)
    return Search(
        done=jnp.asarray(limits.steps) <= 0,
        steps=jnp.zeros((), jnp.int32),
        rate=jnp.minimum(rate, jnp.asarray(limits.rate, dtype)),
        low=origin,
        high=nowhere,
        third=nowhere,
        chosen=origin,
        grad=grad,
        decrease_error=infinite,
        curvature_error=infinite,
    )


@compiled_when_concrete
def advance(search: Search, new: Point, grad: PyTree, origin: Point, limits: Limits) -> Search:
    """Evaluates the conditions at the point that was tried, and sets the next rate.

    Nocedal and Wright's two algorithms are one here: while no interval is known, `high` is at
    infinity, and rates grow.

    Args:
      search: the search so far.
      new: the point.
      grad: the gradient there.
      origin: the ray's origin.
      limits: the hyperparameters.
    """
    steps = search.steps + 1
    most, limits = limits.steps, _cast(limits, new.value.dtype)
    low, high = search.low, search.high
    finite = jnp.isfinite(new.value) & jnp.isfinite(new.slope)
    decrease_error, curvature_error = (
        jnp.where(finite, error, jnp.inf) for error in _errors(new, origin, limits)
    )
    sufficient = decrease_error <= 0
    accepted = sufficient & (curvature_error <= 0)
    worse = ~sufficient | ((new.value >= low.value) & (search.steps > 0))
    passed = new.slope * jnp.sign(high.rate - low.rate) >= 0  # the minimum has been passed
    # The best point that decreases the loss is chosen, and until there is one, the last.
    take = finished(accepted | ~worse | (finite & (low.rate == 0)))

    third = _choose(worse | passed, high, low)
    high = _choose(worse, new, _choose(passed, low, high))
    low = _choose(worse, low, new)
    bracketed = jnp.isfinite(high.rate)
    short = bracketed & (jnp.abs(high.rate - low.rate) <= limits.precision) & (low.rate > 0)
    at_most = ~bracketed & (new.rate >= limits.rate)
    grown = jnp.minimum(limits.increase_factor * new.rate, limits.rate)
    return Search(
        done=accepted | short | at_most | (steps >= most),
        steps=steps,
        rate=jnp.where(bracketed, _between(low, high, third), grown),
        low=low,
        high=high,
        third=third,
        chosen=_choose(take, new, search.chosen),
        grad=_choose(take, grad, search.grad),
        decrease_error=jnp.where(take, decrease_error, search.decrease_error),
        curvature_error=jnp.where(take, curvature_error, search.curvature_error),
    )


def _errors(new: Point, origin: Point, limits: Limits) -> tuple[Array, Array]:
    """Returns the violation of each condition at a point; 0 where it holds."""
    promised = limits.slope_rtol * new.rate * origin.slope
    decrease = new.value - (origin.value + promised)
    if limits.approx_dec_rtol is not None:
        near = new.value - (origin.value + limits.approx_dec_rtol * jnp.abs(origin.value))
        slope = new.slope - limits.approx_slope_rtol * origin.slope
        decrease = jnp.minimum(decrease, jnp.maximum(slope, near))
    curvature = jnp.abs(new.slope) - limits.curv_rtol * jnp.abs(origin.slope)
    return jnp.maximum(decrease - limits.tol, 0), jnp.maximum(curvature - limits.tol, 0)


def _between(low: Point, high: Point, third: Point) -> Array:
    """Returns the next rate to try between two points.

    With `x = rate - low.rate`, that is the minimum of the cubic
    `low.value + low.slope * x + b * x**2 + a * x**3` through the other two points; if it is not in
    the middle three fifths of the interval, that of the parabola through `high`; if this is not in
    its middle four fifths, the middle.
    """
    width, far = high.rate - low.rate, third.rate - low.rate
    # Missing numbers are replaced, so that derivatives stay finite; the results are not used.
    width = jnp.where(jnp.isfinite(width) & (width != 0), width, 1)
    parabola_known = jnp.isfinite(high.value)
    cubic_known = parabola_known & jnp.isfinite(far) & jnp.isfinite(third.value)
    cubic_known &= (far != 0) & (far != width)
    far = jnp.where(cubic_known, far, 2 * width)

    def curvature(value: Scalar, x: Array, known: Array) -> Array:
        rise = jnp.where(known, value, low.value) - low.value
        return (rise - low.slope * x) / (x * x)

    at_high = curvature(high.value, width, parabola_known)
    at_third = curvature(third.value, far, cubic_known)
    a = (at_high - at_third) / (width - far)
    b = at_high - a * width
    radicand = b * b - 3 * a * low.slope
    real = radicand > 0
    spread = jnp.sqrt(jnp.where(real, radicand, 1))
    # Two forms of one root, neither of which subtracts nearly equal numbers.
    cubic = jnp.where(b > 0, _quotient(-low.slope, b + spread), _quotient(spread - b, 3 * a))
    parabola = _quotient(-low.slope, 2 * at_high)

    def inside(x: Array, margin: float) -> Array:
        return (x / width > margin) & (x / width < 1 - margin)

    x = jnp.where(parabola_known & inside(parabola, 0.1), parabola, 0.5 * width)
    x = jnp.where(cubic_known & real & inside(cubic, 0.2), cubic, x)
    return low.rate + x


def _quotient(x: Array, y: Array) -> Array:
    """Returns `x / y`, and infinity without a derivative where `y` is 0."""
    return jnp.where(y != 0, x / jnp.where(y != 0, y, 1), jnp.inf)


def _choose(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(b.dtype), yes, no)


def _cast(limits: Limits, dtype: DTypeLike) -> Limits:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), limits)
