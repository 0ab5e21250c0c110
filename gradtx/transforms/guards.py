"""Deciding, step by step, whether a transformation takes part.

One mechanism, `run_if`, under all of them: a branch, so that the transformation either runs or does
not, and neither its state nor its cost is touched when it does not.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from gradtx import tree
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import abs_sq, safe_increment, total, widen
from gradtx.engine.pipeline import wrapped
from gradtx.engine.roles import Count, Inner, Reading, Told, declared


@declared
class ApplyIfFiniteState(NamedTuple):
    """The state of `apply_if_finite`.

    Attributes:
      notfinite_count: updates in a row, up to the last one, that held an infinity or a NaN.
      last_finite: whether the last one held none.
      total_notfinite: all updates so far that held one.
      inner_state: the state of the transformation within.
    """

    notfinite_count: Annotated[Count, Told()]
    last_finite: Reading
    total_notfinite: Reading
    inner_state: Inner


@declared
class ConditionallyTransformState(NamedTuple):
    """The state of `conditionally_transform`.

    Attributes:
      inner_state: the state of the transformation within.
      step: the number of steps, taken and left out.
    """

    inner_state: Inner
    step: Count


@declared
class ConditionallyMaskState(NamedTuple):
    """The state of `conditionally_mask`.

    Attributes:
      step: the number of steps, taken and left out.
      inner_state: the state of the transformation within.
    """

    step: Count
    inner_state: Inner


class ConditionFn(Protocol):
    """Says whether to take a step: `condition(step, **extra) -> bool`."""

    def __call__(self, step: Array, **extra_args: Any) -> Any:  # noqa: D102
        ...


def run_if(
    go: Any,
    inner: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra: dict[str, Any],
    instead: Updates,
) -> tuple[Updates, OptState]:
    """Takes the step of a transformation, or leaves it out.

    Args:
      go: a scalar boolean, traced or concrete.
      inner: the transformation.
      updates: what it would transform.
      state: its state.
      params: the parameters, or `None`.
      extra: its extra arguments.
      instead: the updates where the step is left out; the others are cast to their dtypes.
    """

    def step() -> tuple[Updates, OptState]:
        return cast_like(inner.update(updates, state, params, **extra), (instead, state))

    return branch(go, step, lambda: (instead, state))


def cast_like(new: Any, old: Any) -> Any:
    """Casts the leaves of a tree to the dtypes of another of the same structure.

    What is of our making has them already; other libraries' states may change at their first step.

    Args:
      new: a pytree of arrays.
      old: the pytree whose dtypes are wanted.
    """

    def cast(x: Any, like: Any) -> Any:
        dtype = jnp.result_type(like)
        return x if getattr(x, "dtype", None) == dtype else lax.convert_element_type(x, dtype)

    return jax.tree.map(cast, new, old)


@compiled_when_concrete
def count_not_finite(updates: Updates) -> Array:
    """Counts the infinities and NaNs in a tree.

    Args:
      updates: a pytree of arrays.
    """
    found = [jnp.sum(~jnp.isfinite(x), dtype=jnp.int32) for x in jax.tree.leaves(updates)]
    return jnp.asarray(total(found), jnp.int32)


@piece
def apply_if_finite(inner: Any, max_consecutive_errors: int) -> GradientTransformation:
    """Leaves out steps whose updates hold an infinity or a NaN, unless too many do in a row.

    Such a step gives zeros, and the state within stays as it was. After `max_consecutive_errors` of
    them in a row the next ones are let through: something is broken that skipping does not mend.

    Args:
      inner: the transformation.
      max_consecutive_errors: how many in a row are left out.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.apply_if_finite(gradtx.sgd(0.1), max_consecutive_errors=3)
      >>> state = tx.init(jnp.zeros(1))
      >>> updates, state = tx.update(jnp.array([jnp.nan]), state)
      >>> print(updates, state.notfinite_count)
      [0.] 1
    """
    inner = with_extra_args_support(inner)

    def init(params: Params) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(
            notfinite_count=jnp.zeros((), jnp.int32),
            last_finite=jnp.ones((), bool),
            total_notfinite=jnp.zeros((), jnp.int32),
            inner_state=inner.init(params),
        )

    @compiled_when_concrete
    def judge(updates: Updates, in_a_row: Array, total: Array) -> tuple[Array, ...]:
        finite = count_not_finite(updates) == 0
        in_a_row = jnp.where(finite, 0, safe_increment(in_a_row))
        total = jnp.where(finite, total, safe_increment(total))
        return finite | (in_a_row > max_consecutive_errors), in_a_row, finite, total

    def update(
        updates: Updates, state: ApplyIfFiniteState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ApplyIfFiniteState]:
        go, in_a_row, finite, total = judge(updates, state.notfinite_count, state.total_notfinite)
        zeros = tree.zeros_like(updates)
        updates, inner_state = run_if(go, inner, updates, state.inner_state, params, extra, zeros)
        return updates, ApplyIfFiniteState(in_a_row, finite, total, inner_state)

    return wrapped(init, update, inner)


@piece
def conditionally_transform(
    inner: Any, should_transform_fn: ConditionFn, forward_extra_args: bool = False
) -> GradientTransformation:
    """Runs a transformation at some steps; at the others, updates pass by unchanged.

    Args:
      inner: the transformation; its state stays as it is while it does not run.
      should_transform_fn: `should_transform_fn(step) -> bool`; the step is 0 at the first call.
      forward_extra_args: whether it gets the extra arguments of `update` too. Default: no.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.conditionally_transform(gradtx.scale(2.0), lambda step: step < 1)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      ...     print(updates)
      [2.]
      [1.]
    """
    return _conditional(
        inner,
        should_transform_fn,
        forward_extra_args,
        ConditionallyTransformState,
        lambda updates: updates,
    )


@piece
def conditionally_mask(
    inner: Any, should_transform_fn: ConditionFn, forward_extra_args: bool = False
) -> GradientTransformation:
    """Runs a transformation at some steps; at the others, updates become zero.

    Args:
      inner: the transformation; its state stays as it is while it does not run.
      should_transform_fn: `should_transform_fn(step) -> bool`; the step is 0 at the first call.
      forward_extra_args: whether it gets the extra arguments of `update` too. Default: no.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.conditionally_mask(gradtx.scale(2.0), lambda step: step < 1)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      ...     print(updates)
      [2.]
      [0.]
    """
    return _conditional(
        inner, should_transform_fn, forward_extra_args, ConditionallyMaskState, tree.zeros_like
    )


def _conditional(
    inner: Any,
    condition: ConditionFn,
    forward_extra_args: bool,
    state_class: type[ConditionallyTransformState] | type[ConditionallyMaskState],
    instead: Callable[[Updates], Updates],
) -> GradientTransformation:
    """Runs a transformation at some steps; at the others, `instead` makes the updates."""
    inner = with_extra_args_support(inner)

    def init(params: Params) -> Any:
        return state_class(step=jnp.zeros((), jnp.int32), inner_state=inner.init(params))

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, Any]:
        go = condition(state.step, **(extra if forward_extra_args else {}))
        left_out = instead(updates)
        updates, inner_state = run_if(
            go, inner, updates, state.inner_state, params, extra, left_out
        )
        return updates, state_class(step=safe_increment(state.step), inner_state=inner_state)

    return wrapped(init, update, inner)


class ShouldSkipUpdateFunction(Protocol):
    """Says whether `MultiSteps` leaves a micro-batch out, and what to remember of it.

    `should_skip(updates, gradient_step, params) -> (bool, anything)`.
    """

    def __call__(  # noqa: D102
        self, updates: Updates, gradient_step: Array, params: Params | None
    ) -> tuple[Any, Any]: ...


def skip_not_finite(
    updates: Updates, gradient_step: Array, params: Params | None
) -> tuple[Array, dict[str, Array]]:
    """Tells `MultiSteps` to leave out updates that hold an infinity or a NaN.

    Args:
      updates: a pytree of arrays.
      gradient_step: ignored.
      params: ignored.

    Returns:
      Whether to skip, and the same with the number of elements that are not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> skip, told = gradtx.skip_not_finite({"w": jnp.array([1.0, jnp.nan])}, 0, None)
      >>> print(skip, told["num_not_finite"])
      True 1
    """
    del gradient_step, params
    number = count_not_finite(updates)
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def skip_large_updates(
    updates: Updates, gradient_step: Array, params: Params | None, max_squared_norm: Any
) -> tuple[Array, dict[str, Array]]:
    """Tells `MultiSteps` to leave out updates whose squared norm is too large, or not a number.

    Args:
      updates: a pytree of arrays.
      gradient_step: ignored.
      params: ignored.
      max_squared_norm: the largest squared Euclidean norm over all leaves that passes.

    Returns:
      Whether to skip, and the same with the squared norm.

    Example:
      >>> import functools
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> skip = functools.partial(gradtx.skip_large_updates, max_squared_norm=100.0)
      >>> print(skip({"w": jnp.array([11.0])}, 0, None)[0])
      True
    """
    del gradient_step, params
    norm_squared = jnp.asarray(tree.sum(jax.tree.map(lambda x: abs_sq(widen(x)), updates)))
    should_skip = ~(norm_squared <= max_squared_norm)
    return should_skip, {"should_skip": should_skip, "norm_squared": norm_squared}
