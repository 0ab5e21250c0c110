"""Transformations that run at some of the steps only.

All of them use `run_if`, a branch: at the other steps the transformation is not computed, and its
state does not change.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx import tree
from gradtx._roles import Count, Inner, Reading, Told, declared
from gradtx.engine.base import (
    Array,
    ExtraArgs,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    Scalar,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import abs_sq, safe_increment, widen
from gradtx.engine.pipeline import wrapped
from gradtx.engine.scalars import total


@declared
class ApplyIfFiniteState(NamedTuple):
    """The state of `apply_if_finite`.

    Attributes:
      notfinite_count: the number of consecutive updates, up to the last, with an infinity or NaN.
      last_finite: whether the last updates were finite.
      total_notfinite: the number of updates so far with an infinity or NaN.
      inner_state: the state of the wrapped transformation.
    """

    notfinite_count: Annotated[Count, Told()]
    last_finite: Reading
    total_notfinite: Reading
    inner_state: Inner


@declared
class ConditionallyTransformState(NamedTuple):
    """The state of `conditionally_transform`.

    Attributes:
      inner_state: the state of the wrapped transformation.
      step: the number of all steps, also those at which the transformation did not run.
    """

    inner_state: Inner
    step: Count


@declared
class ConditionallyMaskState(NamedTuple):
    """The state of `conditionally_mask`.

    Attributes:
      step: the number of all steps, also those at which the transformation did not run.
      inner_state: the state of the wrapped transformation.
    """

    step: Count
    inner_state: Inner


class ConditionFn(Protocol):
    """A function that decides whether to run at a step: `condition(step, **extra) -> bool`."""

    def __call__(self, step: Array, **extra_args: Any) -> ArrayLike:  # noqa: D102
        ...


def run_if(
    go: ArrayLike,
    inner: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra: ExtraArgs,
    instead: Updates,
) -> tuple[Updates, OptState]:
    """Runs a step of a transformation if a condition holds, and else keeps its state.

    Args:
      go: the condition, a scalar boolean, traced or concrete.
      inner: the transformation.
      updates: its updates.
      state: its state.
      params: the parameters, or `None`.
      extra: its extra arguments.
      instead: the updates to return if it does not run; its results are cast to their dtypes.
    """

    def step() -> tuple[Updates, OptState]:
        return cast_like(inner.update(updates, state, params, **extra), (instead, state))

    return branch(go, step, lambda: (instead, state))


def cast_like(new: PyTree, old: PyTree) -> PyTree:
    """Casts the leaves of a pytree to the dtypes of another pytree of the same structure.

    States of gradtx have these dtypes already; those of other libraries may change theirs at the
    first step.

    Args:
      new: a pytree of arrays.
      old: the pytree that has the dtypes.
    """

    def cast(x: ArrayLike, like: ArrayLike) -> ArrayLike:
        dtype = jnp.result_type(like)
        return x if getattr(x, "dtype", None) == dtype else lax.convert_element_type(x, dtype)

    return jax.tree.map(cast, new, old)


def begun_again(tx: TransformationLike, params: Params, state: OptState) -> OptState:
    """Returns the initial state of a transformation with the fields and dtypes of another state.

    Args:
      tx: the transformation.
      params: the parameters.
      state: a state of `tx`, possibly in optax's layout, see `gradtx.optax_layout`.
    """

    def with_fields(new: PyTree, old: PyTree) -> PyTree:
        if hasattr(old, "_fields"):
            fields = {f: with_fields(getattr(new, f), getattr(old, f)) for f in old._fields}
            return old._replace(**fields)
        if isinstance(old, dict):
            return {key: with_fields(new[key], x) for key, x in old.items()}
        if isinstance(old, (tuple, list)):
            return type(old)(map(with_fields, new, old))
        return None if old is None else new

    return cast_like(with_fields(tx.init(params), state), state)


@compiled_when_concrete
def count_not_finite(updates: Updates) -> Array:
    """Returns the number of infinities and NaNs in a pytree.

    Args:
      updates: a pytree of arrays.
    """
    found = [jnp.sum(~jnp.isfinite(x), dtype=jnp.int32) for x in jax.tree.leaves(updates)]
    return jnp.asarray(total(found), jnp.int32)


@piece
def apply_if_finite(
    inner: TransformationLike, max_consecutive_errors: int
) -> GradientTransformation:
    """Skips steps whose updates contain an infinity or NaN, up to a number of consecutive steps.

    A skipped step returns zeros and leaves the state of `inner` unchanged. After
    `max_consecutive_errors` consecutive skipped steps, the next ones are not skipped, until updates
    are finite again, so that a lasting fault does not stay hidden.

    Args:
      inner: the transformation.
      max_consecutive_errors: the largest number of consecutive steps that are skipped.

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

    return wrapped(init, update, inner, name="apply_if_finite", state=ApplyIfFiniteState)


@piece
def conditionally_transform(
    inner: TransformationLike, should_transform_fn: ConditionFn, forward_extra_args: bool = False
) -> GradientTransformation:
    """Runs a transformation at some steps; at the others, it returns the updates unchanged.

    Args:
      inner: the transformation; its state does not change while it does not run.
      should_transform_fn: `should_transform_fn(step) -> bool`; the step is 0 at the first call.
      forward_extra_args: whether `should_transform_fn` gets the extra arguments of `update` too.
        Default: False.

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
        "conditionally_transform",
        ConditionallyTransformState,
        lambda updates: updates,
    )


@piece
def conditionally_mask(
    inner: TransformationLike, should_transform_fn: ConditionFn, forward_extra_args: bool = False
) -> GradientTransformation:
    """Runs a transformation at some steps; at the others, it returns zeros.

    Args:
      inner: the transformation; its state does not change while it does not run.
      should_transform_fn: `should_transform_fn(step) -> bool`; the step is 0 at the first call.
      forward_extra_args: whether `should_transform_fn` gets the extra arguments of `update` too.
        Default: False.

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
        inner,
        should_transform_fn,
        forward_extra_args,
        "conditionally_mask",
        ConditionallyMaskState,
        tree.zeros_like,
    )


def _conditional(
    inner: TransformationLike,
    condition: ConditionFn,
    forward_extra_args: bool,
    name: str,
    state_class: type[ConditionallyTransformState] | type[ConditionallyMaskState],
    instead: Callable[[Updates], Updates],
) -> GradientTransformation:
    """Runs a transformation at some steps; at the others, it returns `instead(updates)`."""
    inner = with_extra_args_support(inner)

    def init(params: Params) -> OptState:
        return state_class(step=jnp.zeros((), jnp.int32), inner_state=inner.init(params))

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        go = condition(state.step, **(extra if forward_extra_args else {}))
        left_out = instead(updates)
        updates, inner_state = run_if(
            go, inner, updates, state.inner_state, params, extra, left_out
        )
        return updates, state_class(step=safe_increment(state.step), inner_state=inner_state)

    # the condition may read any extra argument
    traits = {"passes_to": None} if forward_extra_args else {}
    return wrapped(init, update, inner, name=name, state=state_class, traits=traits)


class ShouldSkipUpdateFunction(Protocol):
    """A function that decides whether `MultiSteps` skips a micro-batch.

    `should_skip(updates, gradient_step, params) -> (bool, report)`; the report, any pytree of
    arrays, is kept in the state.
    """

    def __call__(  # noqa: D102
        self, updates: Updates, gradient_step: Array, params: Params | None
    ) -> tuple[ArrayLike, PyTree]: ...


def skip_not_finite(
    updates: Updates, gradient_step: Array, params: Params | None
) -> tuple[Array, dict[str, Array]]:
    """Returns whether updates contain an infinity or NaN, so that `MultiSteps` skips them.

    Args:
      updates: a pytree of arrays.
      gradient_step: ignored.
      params: ignored.

    Returns:
      A scalar boolean, and a dict with it (`should_skip`) and the number of elements that are not
      finite (`num_not_finite`).

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
    updates: Updates, gradient_step: Array, params: Params | None, max_squared_norm: Scalar
) -> tuple[Array, dict[str, Array]]:
    """Returns whether the squared norm of updates is too large or NaN, so that they are skipped.

    It is for `MultiSteps`, as the argument `should_skip_update_fn`.

    Args:
      updates: a pytree of arrays.
      gradient_step: ignored.
      params: ignored.
      max_squared_norm: the largest squared Euclidean norm, over all leaves, that is not skipped.

    Returns:
      A scalar boolean, and a dict with it (`should_skip`) and the squared norm (`norm_squared`).

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
