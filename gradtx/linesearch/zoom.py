"""The line search for the strong Wolfe conditions: bracketing, then zooming in."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx import tree
from gradtx._roles import Hyperparameter, Role, Shared, Slot, Told, declared
from gradtx.engine.base import Array, GradientTransformation, Params, PyTree, Scalar, Updates
from gradtx.engine.concrete import branch
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.linesearch.loop import loop_until_done
from gradtx.linesearch.ray import Ray, gradient_here, loss_of_params, scaled, zero_gradient
from gradtx.linesearch.wolfe import Limits, Point, Search, advance, begin
from gradtx.tree.present import common_dtype


class ZoomLinesearchInfo(NamedTuple):
    """The result of the last search of `scale_by_zoom_linesearch`.

    Attributes:
      num_linesearch_steps: the number of evaluations of the loss and its gradient.
      decrease_error: the violation of the condition of sufficient decrease; 0 if it holds.
      curvature_error: the violation of the curvature condition; 0 if it holds.
    """

    num_linesearch_steps: Array
    decrease_error: Array
    curvature_error: Array


@declared
class ScaleByZoomLinesearchState(NamedTuple):
    """The state of `scale_by_zoom_linesearch`.

    Attributes:
      learning_rate: the rate that the last search chose; 1 before the first search.
      value: the loss after that step; infinite before the first search.
      grad: the gradient there, as `jax.grad` returns it.
      info: the result of the search, a `ZoomLinesearchInfo`.
    """

    learning_rate: Hyperparameter
    value: Annotated[Shared, Told("loss")]
    grad: Slot
    info: Annotated[ZoomLinesearchInfo, Role("reading", told="*")]


@piece
def scale_by_zoom_linesearch(
    max_linesearch_steps: Scalar,
    max_learning_rate: Scalar | None = None,
    tol: Scalar = 0.0,
    increase_factor: Scalar = 2.0,
    slope_rtol: Scalar = 1e-4,
    curv_rtol: Scalar = 0.9,
    approx_dec_rtol: Scalar | None = 1e-6,
    stepsize_precision: Scalar = 1e-5,
    initial_guess_strategy: Literal["keep", "one"] = "keep",
    verbose: bool = False,
) -> GradientTransformation:
    """Scales updates by a rate that satisfies the strong Wolfe conditions.

    With `phi(rate) = f(p + rate * u)` for the updates `u`, and its derivative `slope`, the rate is
    such that

        phi(rate) <= phi(0) + slope_rtol * rate * slope(0) + tol
        |slope(rate)| <= curv_rtol * |slope(0)| + tol

    the conditions of sufficient decrease and of curvature. Rates grow by `increase_factor` until an
    interval holds a solution. Then the interval shrinks around the minimum of an interpolating
    cubic or parabola, or around its middle. Close to a minimum, where rounding hides a decrease,
    the first condition may be replaced by that of Hager and Zhang:
    `slope(rate) <= (2 * slope_rtol - 1) * slope(0)`, if
    `phi(rate) <= phi(0) + approx_dec_rtol * |phi(0)|`. Losses that are not finite count as too
    large.

    Besides the parameters, `update` needs `value=`, the loss there; `grad=`, its gradient there;
    and `value_fn=`, the loss as a function of the parameters. Further keyword arguments that
    `value_fn` accepts are passed to it. Complex gradients must be the conjugates of those that
    `jax.grad` returns, as for every transformation.

    If no rate satisfies both conditions, the best one with sufficient decrease is taken; if there
    is none, the last one that was tried, or 0 if the loss was not finite there.

    Args:
      max_linesearch_steps: the largest number of evaluations of the loss and its gradient.
      max_learning_rate: the largest rate. Default: `None`, no limit.
      tol: the tolerance of both conditions. Default: 0.
      increase_factor: the growth of rates until an interval is found; usually above 1. Default: 2.
      slope_rtol: the required decrease, as a fraction of the decrease that the slope predicts, in
        [0, 1]; usually below 1/2. Default: 1e-4.
      curv_rtol: the fraction of the slope that may remain, not negative; usually between
        `slope_rtol` and 1. Default: 0.9.
      approx_dec_rtol: the relative increase of the loss that is attributed to rounding, or `None`
        never to replace the first condition. Default: 1e-6.
      stepsize_precision: the length of an interval that ends the search, if its better end
        decreases the loss sufficiently. Default: 1e-5.
      initial_guess_strategy: the first rate: `"keep"` for the last search's rate, which suits
        gradient descent, or `"one"`, which suits Newton and quasi-Newton methods. Default:
        `"keep"`.
      verbose: whether failed searches are reported, by `jax.debug.print`. Default: False.

    Raises:
      ValueError: the strategy is neither `"keep"` nor `"one"`, `update` was called without params,
        or `value_fn` does not return a scalar.
      TypeError: `update` was called without `value`, `grad` or `value_fn`, or `value_fn` returns
        more than the loss.

    Source: Nocedal and Wright, "Numerical Optimization", 2nd edition (2006), algorithms 3.5 and
    3.6; Hager and Zhang, "Algorithm 851: CG_DESCENT, a conjugate gradient method with guaranteed
    descent" (2006).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return jnp.sum((p - 3.0) ** 4)
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(15))
      >>> p = jnp.zeros(2)
      >>> value, grad = jax.value_and_grad(loss)(p)
      >>> updates, state = tx.update(grad, tx.init(p), p, value=value, grad=grad, value_fn=loss)
      >>> loss(p + updates) < value
      Array(True, dtype=bool)
      >>> state[-1].info.decrease_error.item(), state[-1].info.curvature_error.item()
      (0.0, 0.0)
    """
    limits = Limits(
        max_linesearch_steps,
        math.inf if max_learning_rate is None else max_learning_rate,
        tol,
        increase_factor,
        slope_rtol,
        2 * slope_rtol - 1,
        curv_rtol,
        approx_dec_rtol,
        stepsize_precision,
    )

    def init(params: Params) -> ScaleByZoomLinesearchState:
        dtype = common_dtype(params)
        return ScaleByZoomLinesearchState(
            learning_rate=jnp.ones((), dtype),
            value=jnp.full((), jnp.inf, dtype),
            grad=zero_gradient(params),
            info=ZoomLinesearchInfo(
                num_linesearch_steps=jnp.zeros((), jnp.int32),
                decrease_error=jnp.full((), jnp.inf, dtype),
                curvature_error=jnp.full((), jnp.inf, dtype),
            ),
        )

    def update(
        updates: Updates,
        state: ScaleByZoomLinesearchState,
        params: Params,
        *,
        value: Scalar,
        grad: PyTree,
        value_fn: Callable[..., Array],
        **extra: Any,
    ) -> tuple[Updates, ScaleByZoomLinesearchState]:
        dtype = common_dtype(params)
        ray = Ray(loss_of_params(value_fn, extra), params, updates, dtype)
        here = gradient_here(state.grad, updates, grad)
        keep = initial_guess_strategy == "keep"
        guess = jnp.asarray(state.learning_rate, dtype) if keep else None
        search = begin(jnp.asarray(value), ray.slope(grad), here, guess, limits)
        origin = search.low

        def body(search: Search) -> Search:
            value, grad, slope = ray.value_and_grad(search.rate)
            return advance(search, Point(search.rate, value, slope), grad, origin, limits)

        search = loop_until_done(body, search, max_linesearch_steps)
        chosen = search.chosen
        if verbose:
            _report(origin, search)
        info = ZoomLinesearchInfo(search.steps, search.decrease_error, search.curvature_error)
        new = ScaleByZoomLinesearchState(chosen.rate, chosen.value, search.grad, info)
        return scaled(updates, chosen.rate), tree.cast_like(new, state)

    return coupled(
        ScaleByZoomLinesearchState,
        init,
        update,
        name="scale_by_zoom_linesearch",
        needs=("value", "grad", "value_fn"),
        params=True,
    )


def _report(origin: Point, search: Search) -> None:
    """Prints why the search failed, if it did."""
    failed = (search.decrease_error > 0) | (search.curvature_error > 0)

    def show() -> None:
        jax.debug.print(
            "scale_by_zoom_linesearch: no rate satisfies both conditions after {steps} "
            "evaluations. Chosen: rate {rate}; sufficient decrease fails by {decrease}, curvature "
            "by {curvature}. Loss {before} -> {after}; slope {slope} -> {slope_after} (the first "
            "must be negative); interval between {low} and {high}.",
            steps=search.steps,
            rate=search.chosen.rate,
            decrease=search.decrease_error,
            curvature=search.curvature_error,
            before=origin.value,
            after=search.chosen.value,
            slope=origin.slope,
            slope_after=search.chosen.slope,
            low=search.low.rate,
            high=search.high.rate,
        )

    branch(failed, show, lambda: None)
