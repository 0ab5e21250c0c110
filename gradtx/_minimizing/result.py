"""The result of `minimize`: the minimum, the way there, and why it stopped."""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._arguments import counted
from gradtx.engine.base import Array, Params
from gradtx.engine.concrete import is_traced


class Stop(enum.IntEnum):
    """The reason why `minimize` stopped; `str` returns it in words.

    `GRADIENT`, `STEP` and `VALUE` mean convergence. `DOMAIN` means that a line search met only
    points where the value or the gradient is not finite, as beyond the edge of a function's domain.

    Example:
      >>> import gradtx
      >>> print(gradtx.Stop.GRADIENT)
      converged: the gradient's norm is at most `tol`
    """

    GRADIENT = 1
    STEP = 2
    VALUE = 3
    OUT_OF_STEPS = 4
    NOT_FINITE = 5
    LINE_SEARCH = 6
    DOMAIN = 7

    def __str__(self) -> str:
        return _WORDS[self]


def _counts(values: int, grads: int) -> str:
    if values < 0:
        return "evaluations unknown"
    return f"{counted(values, 'value')} and {counted(grads, 'gradient')}"


_WORDS = {
    Stop.GRADIENT: "converged: the gradient's norm is at most `tol`",
    Stop.STEP: "converged: steps are no longer than `step_tol` times the norm of x",
    Stop.VALUE: "converged: the value no longer falls by more than `value_tol` times itself",
    Stop.OUT_OF_STEPS: "out of steps: `max_steps` were taken",
    Stop.NOT_FINITE: "not finite: the value or the gradient is NaN or infinite after the next "
    "step, or at the start",
    Stop.LINE_SEARCH: "line search failed: it found no lower value, even along the negative "
    "gradient; the precision may be exhausted, or the gradient wrong",
    Stop.DOMAIN: "line search failed: the value or the gradient is NaN or infinite at all points "
    "that it tried; x may be at the edge of the function's domain",
}


class Trajectory(NamedTuple):
    """The points that `minimize` visited: row 0 is the start, row `k` the point after step `k`.

    There are `max_steps + 1` rows; the rows after the last step repeat it.
    `jax.tree.map(lambda a: a[: steps + 1], trajectory)` drops them.

    Attributes:
      x: the points, a pytree like `x0` whose leaves have an additional first axis.
      value: the function's values at the points.
      gradient_norm: the norms of its gradients at the points.
    """

    x: Params
    value: Array
    gradient_norm: Array


class Minimum(NamedTuple):
    """The result of `minimize`; `str` shows it in a line, or one line for each run of a `vmap`.

    Attributes:
      x: the last point.
      value: the function's value at `x`.
      gradient_norm: the Euclidean norm of its gradient at `x`, over all leaves.
      stop: the reason why it stopped, a number of `Stop`.
      steps: the number of steps taken.
      function_evaluations: the number of function evaluations, those of line searches included; -1
        if the transformation evaluates the function itself without counting (Sophia, SAM).
      gradient_evaluations: the same for the gradient.
      trajectory: the points of all steps, a `Trajectory`, or `None` if it was not requested.
    """

    x: Params
    value: Array
    gradient_norm: Array
    stop: Array
    steps: Array
    function_evaluations: Array
    gradient_evaluations: Array
    trajectory: Trajectory | None

    @property
    def converged(self) -> Array:
        """True if it stopped because of the gradient, the step, or the value."""
        return (self.stop >= Stop.GRADIENT) & (self.stop <= Stop.VALUE)

    @property
    def why(self) -> str | list[str]:
        """The reason why it stopped, in words; under `vmap`, a nested list of them."""
        return jax.tree.map(lambda n: str(Stop(n)), self.stop.tolist())

    def __str__(self) -> str:
        if is_traced(self.stop):
            return repr(self)
        runs = zip(*(jnp.ravel(field).tolist() for field in self[1:7]), strict=True)
        return "\n".join(
            f"{Stop(stop)}. Value {value:.6g}, gradient norm {norm:.2g} after "
            f"{counted(steps, 'step')}, {_counts(values, grads)}"
            for value, norm, stop, steps, values, grads in runs
        )
