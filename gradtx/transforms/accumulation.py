"""Gathering the updates of several micro-steps into one.

`gather` is what all of them do with one leaf at a micro-step. A window ends by choosing, never by
multiplying with zero, so that what is not finite stays within its window.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx import tree
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import finished, safe_increment
from gradtx.engine.paths import StructureError, align, is_none
from gradtx.engine.pipeline import wrapped
from gradtx.engine.roles import Count, Inner, Role, Slot, Told, declared
from gradtx.engine.rules import Counter, Slots, value_at
from gradtx.transforms.guards import ShouldSkipUpdateFunction, cast_like, run_if


def gather(g: Array, gathered: Array, number: Any, mean: bool) -> Array:
    """Takes one more update into a sum or a mean.

    Args:
      g: the update.
      gathered: the sum or mean of those before it, of the dtype in which to add.
      number: how many those are.
      mean: whether it is a mean; it never leaves the range of the updates then.
    """
    g = lax.convert_element_type(g, gathered.dtype)
    if not mean:
        return gathered + g
    return gathered + (g - gathered) / jnp.asarray(number + 1, jnp.finfo(gathered.dtype).dtype)


@declared
class ApplyEvery(NamedTuple):
    """The state of `apply_every`.

    Attributes:
      count: the number of steps since the last at which the sum was returned.
      grad_acc: the sum of the updates since then.
    """

    count: Count
    grad_acc: Slot


@piece
def apply_every(k: int = 1) -> GradientTransformation:
    """Adds updates up, and lets the sum through at every k-th step; zeros between.

    What follows it in a chain runs at every step, on zeros mostly: a momentum behind it decays
    there. To have an optimizer run once in k steps, wrap it in `MultiSteps`.

    Args:
      k: how many steps make one. Default: 1, every step.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.apply_every(2)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      ...     print(updates)
      [0.]
      [2.]
    """

    def init(p: Array) -> Slots:
        return Slots(grad_acc=jnp.zeros_like(p))

    def per_step(step: Any) -> dict[str, Array]:
        return {"last": finished(step == k - 1)}

    def update(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
        total = gather(g, s.grad_acc, None, mean=False)
        zero = jnp.zeros_like(total)
        rest = lax.select(s.last, zero, total)
        return lax.select(s.last, total, zero), Slots(grad_acc=rest)

    counter = Counter(advance=lambda count: (count + 1) % k)  # so that it never saturates
    return leafwise(ApplyEvery, init, update, per_step=per_step, counter=counter)


@declared
class MultiStepsState(NamedTuple):
    """The state of `MultiSteps`.

    Attributes:
      mini_step: micro-steps taken in this window.
      gradient_step: windows finished.
      inner_opt_state: the state of the optimizer within.
      acc_grads: what this window has gathered so far.
      skip_state: what `should_skip_update_fn` told at the last call.
    """

    mini_step: Annotated[Count, Told()]
    gradient_step: Annotated[Count, Told()]
    inner_opt_state: Inner
    acc_grads: Slot
    skip_state: Annotated[Any, Role("reading", told="*")] = ()


class MultiSteps:
    """Gathers the gradients of several micro-batches into one step of an optimizer.

    Gives zeros until a window of `k` micro-steps is full, and then what the optimizer makes of the
    mean (or sum) of its gradients. The optimizer runs at the end of a window only, by a branch, and
    its schedules count windows. Use it like any transformation, in chains too.

    A gradient that is not finite spoils the window that it falls into and no other; with
    `should_skip_update_fn=skip_not_finite` it is left out, and the window waits for another.

    Args:
      opt: the optimizer.
      every_k_schedule: micro-steps in a window: a number, or a function of the number of windows
        finished, which is 0 in the first.
      use_grad_mean: whether to give the optimizer the mean; else the sum. Default: the mean.
      should_skip_update_fn: `should_skip(updates, gradient_step, params) -> (bool, anything)`; a
        micro-step that it says to skip counts for nothing. Default: none is skipped.
      accumulator_dtype: the dtype in which to gather. Default: float32, or wider for wider leaves;
        `None` takes each leaf's own. The updates come back in the dtypes of the gradients.

    Raises:
      ValueError: `every_k_schedule` is a number below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.MultiSteps(gradtx.sgd(0.1), every_k_schedule=2)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in (1.0, 3.0):
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates, tx.has_updated(state))
      [0.] False
      [-0.2] True
    """

    def __init__(
        self,
        opt: Any,
        every_k_schedule: int | Callable[[Array], Any],
        use_grad_mean: bool = True,
        should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
        accumulator_dtype: Any | None = jnp.float32,
    ):
        if isinstance(every_k_schedule, int) and every_k_schedule < 1:
            raise ValueError(
                f"MultiSteps: every_k_schedule is {every_k_schedule}, and must be at least 1"
            )
        self._opt = opt
        dtype = None if accumulator_dtype is None else jnp.dtype(accumulator_dtype)
        self._tx = _multi_steps(opt, every_k_schedule, use_grad_mean, should_skip_update_fn, dtype)

    @property
    def inner_opt(self) -> GradientTransformation:
        """The optimizer within."""
        return self._opt

    def init(self, params: Params) -> MultiStepsState:
        """Returns the first state.

        Args:
          params: a pytree of arrays.
        """
        return self._tx.init(params)

    def update(
        self,
        updates: Updates,
        state: MultiStepsState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, MultiStepsState]:
        """Takes a micro-step, and at the end of a window the optimizer's step.

        Args:
          updates: the gradients of a micro-batch.
          state: the state.
          params: the parameters, if the optimizer needs them. Default: none.
          **extra_args: what the optimizer takes beside; it sees those of a window's last call.
        """
        return self._tx.update(updates, state, params, **extra_args)

    def has_updated(self, state: MultiStepsState) -> Array:
        """Says whether the last micro-step that was not skipped ended a window.

        Args:
          state: the state after it.
        """
        return jnp.logical_and(state.mini_step == 0, state.gradient_step > 0)

    def gradient_transformation(self) -> GradientTransformation:
        """Gives the same as a pair of functions."""
        return self._tx


@piece
def _multi_steps(
    opt: Any,
    every: Any,
    mean: bool,
    should_skip: ShouldSkipUpdateFunction | None,
    dtype: Any | None,
) -> GradientTransformation:
    opt = with_extra_args_support(opt)

    def init(params: Params) -> MultiStepsState:
        zero = jnp.zeros((), jnp.int32)
        empty = jax.tree.map(lambda p: _empty(p, dtype), params)
        told = ()
        if should_skip is not None:
            shapes = jax.eval_shape(should_skip, params, zero, params)[1]
            told = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return MultiStepsState(zero, zero + 0, opt.init(params), empty, told)

    @compiled_when_concrete
    def advance(
        updates: Updates, gathered: Any, mini_step: Array, gradient_step: Array
    ) -> tuple[Array, tuple[Array, Array], Any, Any]:
        """Gives whether the window is full, the new counts, what it holds, and what is kept."""
        full = mini_step >= value_at(every, gradient_step) - 1
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        try:
            so_far = align(treedef, gathered, "state.acc_grads", updates)
        except StructureError as e:
            raise ValueError(f"MultiSteps: {e}") from None
        gathered = treedef.unflatten(
            a if g is None else gather(g, a, mini_step, mean)
            for g, a in zip(leaves, so_far, strict=True)
        )
        rest = jax.tree.map(lambda a: jnp.where(full, jnp.zeros_like(a), a), gathered)
        mini_step = jnp.where(full, 0, safe_increment(mini_step))
        finished = jnp.where(full, safe_increment(gradient_step), gradient_step)
        return full, (mini_step, finished), gathered, rest

    def update(
        updates: Updates, state: MultiStepsState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MultiStepsState]:
        skip, told = False, ()
        if should_skip is not None:
            skip, told = should_skip(updates, state.gradient_step, params)
            told = cast_like(told, state.skip_state)
        zeros = tree.zeros_like(updates)

        def take() -> tuple[Updates, MultiStepsState]:
            counts = state.mini_step, state.gradient_step
            full, new_counts, gathered, rest = advance(updates, state.acc_grads, *counts)
            updated, inner = run_if(
                full, opt, gathered, state.inner_opt_state, params, extra,
                tree.zeros_like(gathered),
            )  # fmt: skip
            return cast_like(updated, updates), MultiStepsState(*new_counts, inner, rest, told)

        return branch(skip, lambda: (zeros, state._replace(skip_state=told)), take)

    return wrapped(init, update, opt)


def _empty(p: Any, dtype: Any | None) -> Array:
    """Makes what a window starts with for one parameter."""
    own = jnp.result_type(p)
    if dtype is None or not jnp.issubdtype(own, jnp.inexact):
        return jnp.zeros_like(p)
    # A narrow dtype is somebody's choice; float32 is the default, and no reason to round.
    wide = jnp.finfo(dtype).bits >= 32 or jnp.issubdtype(own, jnp.complexfloating)
    return jnp.zeros_like(p, dtype=jnp.promote_types(dtype, own) if wide else dtype)
