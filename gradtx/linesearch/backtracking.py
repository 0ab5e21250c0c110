"""The line search that shrinks a rate until the loss decreases sufficiently."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._roles import Hyperparameter, Role, Shared, Slot, Told, declared
from gradtx.engine.base import Array, GradientTransformation, Params, PyTree, Scalar, Updates
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.linesearch.loop import loop_until_done
from gradtx.linesearch.ray import Ray, gradient_here, loss_of_params, scaled, zero_gradient
from gradtx.tree.present import common_dtype


class BacktrackingLinesearchInfo(NamedTuple):
    """The result of the last search of `scale_by_backtracking_linesearch`.

    Attributes:
      num_linesearch_steps: the number of evaluations of the loss.
      decrease_error: the violation of the condition of sufficient decrease; 0 if it holds.
    """

    num_linesearch_steps: Array
    decrease_error: Array


@declared
class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The state of `scale_by_backtracking_linesearch`.

    Attributes:
      learning_rate: the rate that the last search chose; 1 before the first search.
      value: the loss after that step; infinite before the first search.
      grad: the gradient there, as `jax.grad` returns it, if `store_grad`; else `None`.
      info: the result of the search, a `BacktrackingLinesearchInfo`.
    """

    learning_rate: Hyperparameter
    value: Annotated[Shared, Told("loss")]
    grad: Slot
    info: Annotated[BacktrackingLinesearchInfo, Role("reading", told="*")]


class _Search(NamedTuple):
    """The state of a search: the rate to try next, and the result of the last one."""

    done: Array
    steps: Array
    rate: Array
    chosen: Array
    value: Array
    grad: PyTree
    decrease_error: Array


class _Limits(NamedTuple):
    """The hyperparameters of a search."""

    steps: Scalar
    slope_rtol: Scalar
    decrease_factor: Scalar
    atol: Scalar
    rtol: Scalar


@piece
def scale_by_backtracking_linesearch(
    max_backtracking_steps: Scalar,
    slope_rtol: Scalar = 1e-4,
    decrease_factor: Scalar = 0.8,
    increase_factor: Scalar = 1.5,
    max_learning_rate: Scalar = 1.0,
    atol: Scalar = 0.0,
    rtol: Scalar = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> GradientTransformation:
    """Scales updates by a rate at which the loss decreases sufficiently (Armijo's condition).

    For the updates `u` the rate is the first of `r, r * decrease_factor, ...` with

        f(p + rate * u) <= (1 + rtol) * f(p) + slope_rtol * rate * <u, g> + atol

    with the gradient `g` of the loss `f` at `p`. The first rate is
    `r = min(increase_factor * last_rate, max_learning_rate)`, and `max_learning_rate` after a
    search that ended with rate 0. Losses that are not finite count as too large. If
    `max_backtracking_steps` reductions do not suffice, the last rate is taken, or 0 if the loss was
    not finite there.

    Besides the parameters, `update` needs `value=`, the loss there; `grad=`, its gradient there;
    and `value_fn=`, the loss as a function of the parameters. Further keyword arguments that
    `value_fn` accepts are passed to it. Complex gradients must be the conjugates of those that
    `jax.grad` returns, as for every transformation.

    Args:
      max_backtracking_steps: the largest number of reductions of the rate.
      slope_rtol: the required decrease, as a fraction of the decrease that the slope predicts, in
        [0, 1]. Default: 1e-4.
      decrease_factor: the factor of each reduction, in (0, 1). Default: 0.8.
      increase_factor: the factor from the last search's rate to the next search's first rate;
        infinity to always begin with `max_learning_rate`. Default: 1.5.
      max_learning_rate: the largest rate. Default: 1.
      atol: the absolute increase of the loss that is allowed. Default: 0.
      rtol: the increase that is allowed, relative to the loss. Default: 0.
      store_grad: whether the gradient after the step is computed and stored, for
        `value_and_grad_from_state`. Default: False.
      verbose: whether failed searches are reported, by `jax.debug.print`. Default: False.

    Raises:
      TypeError: `update` was called without `value`, `grad` or `value_fn`, or `value_fn` returns
        more than the loss.
      ValueError: `update` was called without params, or `value_fn` does not return a scalar.

    Source: Armijo, "Minimization of functions having Lipschitz continuous first partial
    derivatives" (1966); the growing first rate: Vaswani et al., "Painless Stochastic Gradient:
    Interpolation, Line-Search, and Convergence Rates", arXiv:1905.09997.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return jnp.sum(p**2)
      >>> tx = gradtx.chain(gradtx.sgd(8.0), gradtx.scale_by_backtracking_linesearch(20))
      >>> p = jnp.array([1.0, 2.0])
      >>> value, grad = jax.value_and_grad(loss)(p)
      >>> updates, state = tx.update(grad, tx.init(p), p, value=value, grad=grad, value_fn=loss)
      >>> loss(p + updates) < value
      Array(True, dtype=bool)
      >>> state[-1].info.num_linesearch_steps.item()
      11
    """
    limits = _Limits(max_backtracking_steps, slope_rtol, decrease_factor, atol, rtol)

    def init(params: Params) -> ScaleByBacktrackingLinesearchState:
        dtype = common_dtype(params)
        return ScaleByBacktrackingLinesearchState(
            learning_rate=jnp.ones((), dtype),
            value=jnp.full((), jnp.inf, dtype),
            grad=zero_gradient(params) if store_grad else None,
            info=BacktrackingLinesearchInfo(
                num_linesearch_steps=jnp.zeros((), jnp.int32),
                decrease_error=jnp.full((), jnp.inf, dtype),
            ),
        )

    def update(
        updates: Updates,
        state: ScaleByBacktrackingLinesearchState,
        params: Params,
        *,
        value: Scalar,
        grad: PyTree,
        value_fn: Callable[..., Array],
        **extra: Any,
    ) -> tuple[Updates, ScaleByBacktrackingLinesearchState]:
        ray = Ray(loss_of_params(value_fn, extra), params, updates, state.value.dtype)
        slope = ray.slope(grad)
        here = gradient_here(state.grad, updates, grad) if store_grad else None
        origin = jnp.asarray(value, state.value.dtype)
        first = _first_rate(state.learning_rate, increase_factor, max_learning_rate)
        search = _begin(origin, first, here)

        def body(search: _Search) -> _Search:
            if not store_grad:
                value = ray.value(search.rate)
                return _advance(search, value, origin, slope, limits)
            value, pullback = ray.value_and_pullback(search.rate)
            new = _advance(search, value, origin, slope, limits)
            # The gradient at a rejected rate is not needed.
            ends_here = new.done & jnp.isfinite(value)
            grad = branch(ends_here, lambda: _cast(pullback(), search.grad), lambda: search.grad)
            return new._replace(grad=grad)

        search = loop_until_done(body, search, max_backtracking_steps + 1)
        if verbose:
            _report(search)
        info = BacktrackingLinesearchInfo(search.steps, search.decrease_error)
        new = ScaleByBacktrackingLinesearchState(search.chosen, search.value, search.grad, info)
        return scaled(updates, search.chosen), new

    return coupled(
        ScaleByBacktrackingLinesearchState,
        init,
        update,
        name="scale_by_backtracking_linesearch",
        needs=("value", "grad", "value_fn"),
        params=True,
    )


@compiled_when_concrete
def _first_rate(last: Array, increase_factor: Scalar, most: Scalar) -> Array:
    # A failed search leaves the rate 0, which could not grow.
    grown = jnp.where(last > 0, jnp.where(last > 0, last, 1) * increase_factor, most)
    return jnp.asarray(jnp.minimum(grown, most), last.dtype)


@compiled_when_concrete
def _begin(value: Array, rate: Array, grad: PyTree) -> _Search:
    return _Search(
        done=jnp.zeros((), bool),
        steps=jnp.zeros((), jnp.int32),
        rate=rate,
        chosen=jnp.zeros_like(rate),
        value=value,
        grad=grad,
        decrease_error=jnp.full_like(value, jnp.inf),
    )


@compiled_when_concrete
def _advance(
    search: _Search, value: Array, origin: Array, slope: Array, limits: _Limits
) -> _Search:
    """Evaluates the condition at the rate that was tried, and sets the next, smaller one."""
    dtype = value.dtype
    most = limits.steps
    slope_rtol, decrease_factor, atol, rtol = (jnp.asarray(x, dtype) for x in limits[1:])
    error = value - ((1 + rtol) * origin + slope_rtol * search.rate * slope + atol)
    fails = ~(error <= 0)
    # The last rate is chosen, unless the loss is not finite there.
    take = jnp.isfinite(value)
    return _Search(
        done=~fails | (search.steps >= most),
        steps=search.steps + 1,
        rate=decrease_factor * search.rate,
        chosen=jnp.where(take, search.rate, 0),
        value=jnp.where(take, value, origin),
        grad=search.grad,
        decrease_error=jnp.where(fails, error, 0),
    )


def _cast(tree: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda x, o: jnp.asarray(x, o.dtype), tree, like)


def _report(search: _Search) -> None:
    """Prints why the search failed, if it did."""

    def show() -> None:
        jax.debug.print(
            "scale_by_backtracking_linesearch: no rate decreases the loss sufficiently after "
            "{steps} evaluations. Chosen: rate {rate}, loss {value}; the condition fails by "
            "{error}.",
            steps=search.steps,
            rate=search.chosen,
            value=search.value,
            error=search.decrease_error,
        )

    branch(search.decrease_error > 0, show, lambda: None)
