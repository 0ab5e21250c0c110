"""Accumulating the updates of several micro-steps into one.

`gather` adds one update to what has been accumulated for a leaf. The accumulator is reset by
selecting zeros, never by multiplying by zero, so that values that are not finite do not leak into
the next window.
"""

import functools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx import tree
from gradtx._arguments import checked
from gradtx._devices import placed_as
from gradtx._roles import KEPT, Count, Inner, Role, Shared, Slot, Told, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    Schedule,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.checks import check_value
from gradtx.engine.concrete import branch, compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import default_float, safe_increment, times, widen
from gradtx.engine.pipeline import wrapped
from gradtx.engine.rules import field, value_at
from gradtx.engine.scalars import finished
from gradtx.transforms.extra_arguments import extra_args
from gradtx.transforms.guards import ShouldSkipUpdateFunction, cast_like, run_if
from gradtx.transforms.slots import zero_slots
from gradtx.tree.present import present, replaced


def gather(
    g: ArrayLike,
    gathered: Array,
    before: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Array:
    """Adds one update to a weighted sum, or to a weighted running mean.

    Args:
      g: the update.
      gathered: the sum or mean of the earlier updates; its dtype is that of the arithmetic.
      before: the sum of the weights of earlier updates, for a mean, which is computed so that it
        stays in the range of the updates. Default: `None`, for a sum.
      weight: the weight of the update; with 0 it is left out, even if it is not finite. Default:
        `None`, for 1.
    """
    g = lax.convert_element_type(g, gathered.dtype)
    real = jnp.finfo(gathered.dtype).dtype
    if weight is None:
        if before is None:
            return gathered + g
        return gathered + (g - gathered) / jnp.asarray(before + 1, real)
    weight = jnp.asarray(weight, real)
    takes_part = weight != 0
    if before is None:
        new = gathered + weight * g
    else:
        total = jnp.asarray(before, real) + weight
        new = gathered + weight * (g - gathered) / jnp.where(total == 0, 1, total)
    return jnp.where(takes_part, new, gathered)


@declared
class ApplyEvery(NamedTuple):
    """The state of `apply_every`.

    Attributes:
      count: the number of steps since the sum was last returned.
      grad_acc: the sum of the updates since then, each times its weight.
      excess_weight: the sum of the weights since then, minus their number; it may be omitted, as in
        optax.
    """

    count: Count
    grad_acc: Slot
    excess_weight: Shared = KEPT


@piece
def apply_every(k: int = 1) -> GradientTransformation:
    """Accumulates updates and returns their sum at every k-th step, zeros at the others.

    With `update(..., weight=w)`, such as the number of tokens of a micro-batch whose loss is their
    mean, the sum is `k * sum(w * u) / sum(w)`, which is the sum of the updates for equal weights.
    The weight of a step without `weight` is 1; an update of weight 0 is left out, even if it is not
    finite.

    Later transformations of a chain run at every step, mostly on zeros, and their momentum decays
    there. To run an optimizer only once in k steps, wrap it in `MultiSteps`.

    Args:
      k: the number of updates in a sum. Default: 1, every step.

    Raises:
      TypeError: a parameter or an update is an integer.
      ValueError: `weight` is negative or not finite, unless it is traced; or it is given, and the
        state has no `excess_weight`, as that of `optax_layout`.

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

    def init(params: Params) -> ApplyEvery:
        return ApplyEvery(
            count=jnp.zeros((), jnp.int32),
            grad_acc=zero_slots(params),
            excess_weight=jnp.zeros((), default_float()),
        )

    @compiled_when_concrete
    def step(
        updates: Updates, state: ApplyEvery, weight: ArrayLike | None
    ) -> tuple[Updates, ApplyEvery]:
        last = finished(state.count == k - 1)
        excess, factor = state.excess_weight, None
        if excess is not None:
            excess = excess + _excess(weight)
            total = k + excess  # at the last step
            factor = finished(jnp.where(total == 0, 0, k / jnp.where(total == 0, 1, total)))
        given, gathered = present(updates, updates=updates, **{"state.grad_acc": state.grad_acc})

        @jax.jit  # traced once for each shape
        def one(g: ArrayLike, a: Array) -> tuple[Array, Array]:
            x = gather(g, widen(a), None, weight)
            whole = x if factor is None else times(factor, x)
            out, rest = jnp.where(last, whole, 0), jnp.where(last, 0, x)
            return out.astype(jnp.result_type(g)), rest.astype(a.dtype)

        pairs = [one(g, a) for g, a in zip(given, gathered, strict=True)]
        new = ApplyEvery(
            count=(state.count + 1) % k,  # so that it never saturates
            grad_acc=replaced(state.grad_acc, updates, [rest for _, rest in pairs]),
            excess_weight=KEPT if excess is None else jnp.where(last, 0, excess),
        )
        return replaced(updates, updates, [out for out, _ in pairs]), new

    def update(
        updates: Updates,
        state: ApplyEvery,
        params: Params | None = None,
        *,
        weight: ArrayLike | None = None,
        **extra: Any,
    ) -> tuple[Updates, ApplyEvery]:
        del params, extra
        _check_weight("apply_every", weight, state)
        known = {name: getattr(state, name) for name in state._fields}
        updates, new = step(updates, ApplyEvery(**known), weight)
        return updates, state._replace(**{name: getattr(new, name) for name in known})

    traits = {"weights": ("weight",)}
    return coupled(ApplyEvery, init, update, name="apply_every", traits=traits)


def _excess(weight: ArrayLike | None) -> Array:
    return jnp.asarray(0 if weight is None else jnp.asarray(weight) - 1, default_float())


def _check_weight(name: str, weight: ArrayLike | None, state: OptState) -> None:
    if weight is None:
        return
    check_value(weight, name="weight")
    if "excess_weight" not in state._fields:
        raise ValueError(
            f"{name}: weight needs the field excess_weight of the state, which states in optax's "
            f"layout do not have; use that of {name}(...).init"
        )


@declared
class MultiStepsState(NamedTuple):
    """The state of `MultiSteps`.

    Attributes:
      mini_step: the number of micro-steps taken in this window.
      gradient_step: the number of completed windows.
      inner_opt_state: the state of the wrapped optimizer.
      acc_grads: the mean or sum of this window's gradients so far.
      skip_state: what `should_skip_update_fn` reported at the last call.
      excess_weight: the sum of the weights of this window's micro-batches so far, minus their
        number; it may be omitted, as in optax.
    """

    mini_step: Annotated[Count, Told()]
    gradient_step: Annotated[Count, Told()]
    inner_opt_state: Inner
    acc_grads: Slot
    skip_state: Annotated[PyTree, Role("reading", told="*")] = ()
    excess_weight: Shared = KEPT


class MultiSteps:
    """Accumulates the gradients of several micro-batches for one step of an optimizer.

    The updates are zero until a window of `k` micro-steps is full; then they are those of the
    optimizer for the mean (or sum) of the window's gradients. The optimizer runs only at the end of
    a window, in a `lax.cond`, and its schedules count windows. An instance can be used like any
    transformation, in chains too: what comes before it then acts on each micro-batch, and what
    comes after it runs at every micro-step, mostly on zeros. So weight decay, momentum and learning
    rates belong in `opt`.

    Micro-batches may differ in size: `update(..., weight=w)` gives the weight of a micro-batch,
    such as the number of its tokens if its loss is their mean. The mean of the window is then
    `sum(w * g) / sum(w)`, that over all tokens; with `use_grad_mean=False`, the sum is
    `sum(w * g)`. Without `weight` it is 1. A gradient of weight 0 is left out, even if it is not
    finite, but its micro-step counts; if all weights of a window are 0, the mean is 0. If `opt`
    reads `weight` itself, it gets the sum of the window.

    A gradient that is not finite affects its own window only. With
    `should_skip_update_fn=skip_not_finite` such a gradient is left out, and the window lasts one
    micro-step longer.

    Args:
      opt: the optimizer.
      every_k_schedule: the number of micro-steps in a window: a number, or a function of the number
        of completed windows, which is 0 in the first.
      use_grad_mean: whether the optimizer gets the mean of the gradients instead of their sum.
        Default: True.
      should_skip_update_fn: `should_skip(updates, gradient_step, params) -> (bool, report)`, whose
        report is any pytree of arrays; a micro-step that is skipped is not counted. Default:
        `None`, no micro-step is skipped.
      accumulator_dtype: the dtype of the accumulator. Default: float32, or wider for wider leaves;
        with `None`, each leaf's own. The updates have the dtypes of the gradients.

    Raises:
      ValueError: `every_k_schedule` is a number below 1; `weight` is negative or not finite, unless
        it is traced; or it is given, and the state has no `excess_weight`, as that of
        `optax_layout`.

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

    @functools.partial(checked, name="MultiSteps")
    def __init__(
        self,
        opt: TransformationLike,
        every_k_schedule: int | Schedule,
        use_grad_mean: bool = True,
        should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
        accumulator_dtype: DTypeLike | None = jnp.float32,
    ):
        self._opt = opt
        dtype = None if accumulator_dtype is None else jnp.dtype(accumulator_dtype)
        self._tx = _multi_steps(opt, every_k_schedule, use_grad_mean, should_skip_update_fn, dtype)

    def __repr__(self) -> str:
        return f"MultiSteps({self._opt!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MultiSteps) and self._tx == other._tx

    def __hash__(self) -> int:
        return hash(self._tx)

    @property
    def inner_opt(self) -> TransformationLike:
        """The wrapped optimizer."""
        return self._opt

    def init(self, params: Params) -> MultiStepsState:
        """Returns the initial state.

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
        """Accumulates the gradients of a micro-batch, and runs the optimizer if the window is full.

        Args:
          updates: the gradients of a micro-batch.
          state: the state.
          params: the parameters, if the optimizer needs them. Default: `None`.
          **extra_args: `weight`, that of the micro-batch; and extra arguments of the optimizer,
            which gets those of the window's last call.
        """
        return self._tx.update(updates, state, params, **extra_args)

    def has_updated(self, state: MultiStepsState) -> Array:
        """Returns whether the last micro-step that was not skipped completed a window.

        Args:
          state: the state after that micro-step.
        """
        return jnp.logical_and(state.mini_step == 0, state.gradient_step > 0)

    def gradient_transformation(self) -> GradientTransformation:
        """Returns the same transformation as a pair of functions."""
        return self._tx


@piece
def _multi_steps(
    opt: TransformationLike,
    every: int | Schedule,
    mean: bool,
    should_skip: ShouldSkipUpdateFunction | None,
    dtype: DTypeLike | None,
) -> GradientTransformation:
    opt = with_extra_args_support(opt)
    read = extra_args(opt)
    passes_weight = read is None or "weight" in read

    def init(params: Params) -> MultiStepsState:
        zero = jnp.zeros((), jnp.int32)
        empty = jax.tree.map(lambda p: _empty(p, dtype), params)
        told = ()
        if should_skip is not None:
            shapes = jax.eval_shape(should_skip, params, zero, params)[1]
            told = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return MultiStepsState(
            zero, zero + 0, opt.init(params), empty, told, jnp.zeros((), default_float())
        )

    @compiled_when_concrete
    def advance(
        updates: Updates,
        gathered: Updates,
        counts: tuple[Array, Array],
        excess: Array | None,
        weight: ArrayLike | None,
    ) -> tuple[Array, tuple[Array, Array], tuple[Array, Array] | None, Updates, Updates]:
        """Returns whether the window is full, new counts and weights, its mean, what to keep."""
        mini_step, gradient_step = counts
        full = mini_step >= value_at(every, gradient_step) - 1
        given, so_far = present(updates, updates=updates, **{"state.acc_grads": gathered})
        before = mini_step if excess is None else mini_step + excess
        sums = [
            gather(g, a, before if mean else None, weight)
            for g, a in zip(given, so_far, strict=True)
        ]
        gathered = replaced(gathered, updates, sums)
        rest = jax.tree.map(lambda a: jnp.where(full, jnp.zeros_like(a), a), gathered)
        weights = None
        if excess is not None:
            excess = excess + _excess(weight)
            weights = mini_step + 1 + excess, jnp.where(full, 0, excess)
        mini_step = jnp.where(full, 0, safe_increment(mini_step))
        steps = jnp.where(full, safe_increment(gradient_step), gradient_step)
        return full, (mini_step, steps), weights, gathered, rest

    def update(
        updates: Updates,
        state: MultiStepsState,
        params: Params | None = None,
        *,
        weight: ArrayLike | None = None,
        **extra: Any,
    ) -> tuple[Updates, MultiStepsState]:
        _check_weight("MultiSteps", weight, state)
        skip, told = False, ()
        if should_skip is not None:
            skip, told = should_skip(updates, state.gradient_step, params)
            told = cast_like(told, state.skip_state)
        zeros = tree.zeros_like(updates)

        def take() -> tuple[Updates, MultiStepsState]:
            counts, excess = (state.mini_step, state.gradient_step), field(state, "excess_weight")
            full, new_counts, weights, gathered, rest = advance(
                updates, state.acc_grads, counts, excess, weight
            )
            passed = {}
            if weights is not None and weight is not None and passes_weight:
                passed = {"weight": weights[0]}
            updated, inner = run_if(
                full, opt, gathered, state.inner_opt_state, params, {**extra, **passed},
                tree.zeros_like(gathered),
            )  # fmt: skip
            new = state._replace(
                mini_step=new_counts[0],
                gradient_step=new_counts[1],
                inner_opt_state=inner,
                acc_grads=rest,
                skip_state=told,
            )
            if weights is not None:
                new = new._replace(excess_weight=weights[1])
            return cast_like(updated, updates), new

        return branch(skip, lambda: (zeros, state._replace(skip_state=told)), take)

    traits = {"weights": ("weight",)}
    return wrapped(init, update, opt, name="MultiSteps", state=MultiStepsState, traits=traits)


def _empty(p: ArrayLike, dtype: DTypeLike | None) -> Array:
    """Returns the accumulator of one parameter at the start of a window."""
    own = jnp.result_type(p)
    if dtype is None or not jnp.issubdtype(own, jnp.inexact):
        return placed_as(jnp.zeros_like(p), p)
    # A narrow dtype is the caller's choice; float32 may be the default, and must not narrow a leaf.
    wide = jnp.finfo(dtype).bits >= 32 or jnp.issubdtype(own, jnp.complexfloating)
    zeros = jnp.zeros_like(p, dtype=jnp.promote_types(dtype, own) if wide else dtype)
    return placed_as(zeros, p)
