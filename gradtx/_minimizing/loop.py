"""Minimizing a deterministic function in one compiled loop."""

import functools
import math
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx._apply import apply_updates
from gradtx._minimizing.result import Minimum, Stop, Trajectory
from gradtx._minimizing.searches import (
    ends_in_a_search,
    evaluations,
    not_fulfilled,
    searches_in,
)
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    Scalar,
    with_extra_args_support,
)
from gradtx.engine.numerics import compute_dtype
from gradtx.optimizers import lbfgs
from gradtx.tree.norms import global_norm

_LBFGS = lbfgs()
_RUNNING = 0


class _Limits(NamedTuple):
    """The stopping criteria, as `minimize` describes them."""

    max_steps: int
    tol: Scalar | None
    step_tol: Scalar
    value_tol: Scalar | None
    patience: Scalar


class _Here(NamedTuple):
    """A point with its value and gradient; `grad` is the direction of steepest ascent."""

    x: Params
    value: Array
    grad: Params
    norm: Array


class _Run(NamedTuple):
    """The carry of the loop.

    Attributes:
      here: the current point.
      state: the transformation's state.
      fresh: whether the state is as `init` returned it.
      least: the lowest value so far.
      stalls: for how many consecutive steps `x`, and the value, have hardly changed, `[2]`.
      stop: the reason to stop, or `_RUNNING`.
      steps: the number of steps so far.
      counts: the numbers of function and of gradient evaluations so far, `[2]`.
      rows: the trajectory so far, or `None`.
    """

    here: _Here
    state: OptState
    fresh: Array
    least: Array
    stalls: Array
    stop: Array
    steps: Array
    counts: Array
    rows: Trajectory | None


def minimize(
    fun: Callable[..., Array],
    x0: Params,
    tx: GradientTransformation | None = None,
    *,
    args: tuple[PyTree, ...] = (),
    max_steps: int = 1000,
    tol: Scalar | None = None,
    step_tol: Scalar = 0.0,
    value_tol: Scalar | None = None,
    patience: Scalar = 10,
    trajectory: bool = False,
) -> Minimum:
    """Minimizes a deterministic function by L-BFGS or any other transformation.

    From `x0` it repeats `x = x + tx.update(grad, state, x, ...)` until one of these conditions
    holds, checked in this order:

    - the value or the gradient is not finite: the last step is undone;
    - `norm(grad) <= tol`;
    - the line search found no lower value: the step is undone and the transformation is
      initialized again, because its state may be misleading; it stops if the next step fails too
      (`DOMAIN` if no point that it tried was finite, as at the edge of a domain);
    - `norm(step) <= step_tol * norm(x)` in `patience` consecutive steps;
    - in each of `patience` consecutive steps, the value did not fall below the lowest one so far by
      more than `value_tol` times the magnitude of the latter;
    - `max_steps` steps were taken.

    All norms are Euclidean, over all leaves. The transformation receives every extra argument that
    an optimizer of the catalog may need: `value`, `grad`, `value_fn`, `obj_fn`, `grad_fn`. A point
    that a line search has evaluated is not evaluated again. `minimize` works under `jit` and
    `vmap`, over starts or over `args`.

    The loop is compiled once for each pair of `fun` and `tx` and kept for later calls. Values that
    `fun` reads from outside are constants, as under `jax.jit`; pass values that change in `args`.

    Args:
      fun: the function, `fun(x, *args)`, whose value is a real scalar.
      x0: the start: a pytree of real or complex floating arrays, or of Python floats.
      tx: the transformation. Default: `lbfgs()`, with its zoom line search.
      args: further arguments of `fun`: a tuple of pytrees of arrays. Default: none.
      max_steps: the largest number of steps. Default: 1000.
      tol: the tolerance on the gradient's norm, in units of `fun` per unit of `x`. Default:
        `eps**(2/3)`, where `eps` is the machine epsilon of the coarsest dtype among the leaves and
        the value: 4e-11 in float64, 2e-5 in float32.
      step_tol: the tolerance on the norm of a step, relative to the norm of `x`. Default: 0, which
        never stops.
      value_tol: the tolerance on the decrease of the value, relative to the value. Default: `eps`
        with a line search; otherwise 0, which never stops, because a small learning rate makes
        steps small as well.
      patience: the number of consecutive steps below `step_tol` or `value_tol` after which it
        stops, at least 1. Default: 10.
      trajectory: whether to keep the points of all steps. Default: no.

    Returns:
      A `Minimum`; `print` shows it in a line.

    Raises:
      TypeError: `x0` has a leaf that is not floating, `fun` does not return a real scalar, or `tx`
        is not a transformation.
      ValueError: `max_steps`, `patience` or a tolerance is out of range.

    Source: Nocedal and Wright, "Numerical Optimization" (2006), chapters 3 and 7.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> rosenbrock = gradtx.problems.rosenbrock
      >>> found = gradtx.minimize(rosenbrock, jnp.array([-1.2, 1.0]))
      >>> print(jnp.round(found.x, 3), bool(found.converged))
      [1. 1.] True
      >>> slow = gradtx.minimize(rosenbrock, found.x + 1, gradtx.sgd(1e-4), max_steps=100)
      >>> slow.why
      'out of steps: `max_steps` were taken'
      >>> starts = jnp.array([[0.0, 0.0], [-1.0, 1.0], [1.0, -1.0]])
      >>> many = jax.vmap(lambda x: gradtx.minimize(gradtx.problems.himmelblau, x))(starts)
      >>> print(jnp.round(many.x, 2))
      [[ 3.    2.  ]
       [-2.81  3.13]
       [ 3.58 -1.85]]
    """
    tx = _checked(fun, tx, max_steps)
    limits = _Limits(max_steps, tol, step_tol, value_tol, patience)
    for name in _Limits._fields[1:]:
        _check_number(name, getattr(limits, name), 1 if name == "patience" else 0)
    x0 = _floating(x0)
    length = max_steps + 1 if trajectory else None
    try:
        hash(fun)
        program = _program(fun, tx, length)
    except TypeError:  # not hashable, such as some callable dataclasses
        program = _program.__wrapped__(fun, tx, length)
    return program(x0, tuple(args), limits)


# The cache is bounded because it keeps compiled code, and all that the functions close over.
@functools.lru_cache(maxsize=64)
def _program(
    fun: Callable[..., Array], tx: GradientTransformation, length: int | None
) -> Callable[..., Minimum]:
    return jax.jit(functools.partial(_solve, fun, tx, length))


def _solve(
    fun: Callable[..., Array],
    tx: GradientTransformation,
    length: int | None,
    x0: Params,
    args: tuple[PyTree, ...],
    limits: _Limits,
) -> Minimum:
    asked = [False]

    def f(x: Params) -> Array:
        return fun(x, *args)

    def counted_f(x: Params, *, obj_fn: None = None, grad_fn: None = None) -> Array:
        """The function as `tx` receives it, which records whether it was evaluated.

        optax's line searches pass on their extra arguments, so it has to accept them.
        """
        asked[0] = True
        return f(x)

    def ascent(x: Params, step: Scalar | None = None) -> Params:
        asked[0] = True
        return jax.tree.map(jnp.conj, jax.grad(f)(x))

    value_dtype = _dtype_of_value(f, x0)
    keeps_gradient = ends_in_a_search(tx)

    def arrived(x: Params, value: Array, grad: Params) -> _Here:
        grad = jax.tree.map(lambda g, p: jnp.conj(g).astype(p.dtype), grad, x)
        return _Here(x, jnp.asarray(value, value_dtype), grad, global_norm(grad))

    def advance(run: _Run) -> tuple[_Here, OptState, Array]:
        """Returns the point after one step, the next state, and the counts so far."""
        here = run.here
        more = {"value": here.value, "grad": here.grad, "value_fn": counted_f, "obj_fn": counted_f}
        updates, state = tx.update(here.grad, run.state, here.x, **more, grad_fn=ascent)
        state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), state, run.state)
        x = apply_updates(here.x, updates)
        counts = run.counts + sum((evaluations(s) for s in searches_in(state)), start=0)
        last = searches_in(state)[-1] if keeps_gradient else None
        if last is not None and last.grad is not None:
            return arrived(x, last.value, last.grad), state, counts
        return arrived(x, *jax.value_and_grad(f)(x)), state, counts + 1

    def step(run: _Run) -> _Run:
        new, state, counts = advance(run)
        old, steps = run.here, run.steps + 1
        finite = jnp.isfinite(new.value) & jnp.isfinite(new.norm)
        failed = outside = fresh = jnp.zeros((), bool)
        for search in searches_in(state):
            fails = not_fulfilled(search) & ~(new.value < old.value)
            failed |= fails
            outside |= fails & ~jnp.isfinite(search.info.decrease_error)
        undone = ~finite | failed
        if searches_in(state):
            state = lax.cond(failed, lambda: tx.init(old.x), lambda: state)
            fresh = failed
        here = _choose(undone, old, new)
        stalls = jnp.where(_hardly_moved(run, new, limits.step_tol, value_tol), run.stalls + 1, 0)
        enough = stalls >= limits.patience
        stop = _first(
            {
                Stop.NOT_FINITE: ~finite & ~failed,
                Stop.GRADIENT: here.norm <= tol,
                Stop.DOMAIN: outside & run.fresh,
                Stop.LINE_SEARCH: failed & run.fresh,
                Stop.STEP: enough[0],
                Stop.VALUE: enough[1],
                Stop.OUT_OF_STEPS: steps >= limits.max_steps,
            }
        )
        rows = None if run.rows is None else _put(run.rows, steps, here)
        least = jnp.minimum(run.least, here.value)
        return _Run(here, state, fresh, least, stalls, stop, steps, counts, rows)

    # The attainable norm of the gradient depends on the coarsest arithmetic involved.
    dtypes = [value_dtype, *(x.dtype for x in jax.tree.leaves(x0))]
    eps = max(float(jnp.finfo(d).eps) for d in dtypes)
    here = arrived(x0, *jax.value_and_grad(f)(x0))
    state = jax.tree.map(jnp.asarray, tx.init(x0))
    searching = bool(searches_in(state))
    tol = eps ** (2 / 3) if limits.tol is None else limits.tol
    value_tol = (eps if searching else 0.0) if limits.value_tol is None else limits.value_tol

    finite = jnp.isfinite(here.value) & jnp.isfinite(here.norm)
    stop = _first({Stop.NOT_FINITE: ~finite, Stop.GRADIENT: here.norm <= tol})
    run = _Run(
        here,
        state,
        fresh=jnp.ones((), bool),
        least=here.value,
        stalls=jnp.zeros(2, jnp.int32),
        stop=stop,
        steps=jnp.zeros((), jnp.int32),
        counts=jnp.ones(2, jnp.int32),
        rows=None if length is None else _rows(length, here),
    )
    run = lax.while_loop(lambda run: run.stop == _RUNNING, step, run)
    counts = run.counts if searching or not asked[0] else jnp.full(2, -1, jnp.int32)
    rows = run.rows
    if length is not None:
        reached = jnp.minimum(jnp.arange(length), run.steps)
        rows = jax.tree.map(lambda a: a[reached], rows)
    here = run.here
    return Minimum(here.x, here.value, here.norm, run.stop, run.steps, counts[0], counts[1], rows)


def _hardly_moved(run: _Run, new: _Here, step_tol: Scalar, value_tol: Scalar) -> Array:
    """Returns whether the step was too short, and whether the value fell too little, `[2]`."""
    length = global_norm(jax.tree.map(jnp.subtract, new.x, run.here.x))
    short = (step_tol > 0) & (length <= step_tol * global_norm(new.x))
    flat = (value_tol > 0) & ~(run.least - new.value > value_tol * jnp.abs(run.least))
    return jnp.stack([jnp.asarray(short), jnp.asarray(flat)])


def _checked(
    fun: Callable[..., Array], tx: GradientTransformation | None, max_steps: int
) -> GradientTransformation:
    if not callable(fun):
        raise TypeError(f"minimize: fun must be a function of x, got {fun!r}")
    if tx is not None and not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise TypeError(
            f"minimize: tx must be a transformation, such as gradtx.lbfgs(), got {tx!r}"
        )
    if isinstance(max_steps, bool) or not isinstance(max_steps, Integral) or max_steps < 1:
        raise ValueError(f"minimize: max_steps must be an integer of at least 1, got {max_steps!r}")
    return _LBFGS if tx is None else with_extra_args_support(tx)


def _check_number(name: str, x: Scalar | None, least: int) -> None:
    if isinstance(x, (int, float)) and not least <= x < math.inf:
        raise ValueError(f"minimize: {name} must be finite and at least {least}, got {x}")


def _floating(x0: Params) -> Params:
    """Returns the start as arrays whose dtypes no step changes."""

    def one(path: Any, leaf: Any) -> Array:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"minimize: x0{jax.tree_util.keystr(path)} must be floating, got {dtype}; convert "
                "it, or pass it in args"
            )
        return jnp.asarray(leaf, dtype)

    return jax.tree.map_with_path(one, x0)


def _dtype_of_value(f: Callable[[Params], Array], x0: Params) -> np.dtype:
    value = jax.eval_shape(f, x0)
    kind = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else repr(value)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"minimize: fun must return a real floating scalar, got {kind}")
    return compute_dtype(value.dtype)


def _choose(condition: Array, yes: _Here, no: _Here) -> _Here:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _first(reasons: dict[Stop, Array]) -> Array:
    """Returns the first reason that holds, or `_RUNNING`."""
    stop = jnp.asarray(_RUNNING, jnp.int32)
    for reason in reversed(reasons):
        stop = jnp.where(reasons[reason], jnp.int32(reason), stop)
    return stop


def _rows(length: int, here: _Here) -> Trajectory:
    first = Trajectory(here.x, here.value, here.norm)
    return jax.tree.map(lambda a: jnp.zeros((length, *a.shape), a.dtype).at[0].set(a), first)


def _put(rows: Trajectory, row: Array, here: _Here) -> Trajectory:
    now = Trajectory(here.x, here.value, here.norm)
    return jax.tree.map(lambda all_, a: all_.at[row].set(a), rows, now)
