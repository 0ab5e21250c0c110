"""Gradients at a point between iterates and their average: schedule-free learning, and GPA."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from gradtx._arguments import FRACTION
from gradtx._roles import Clock, Count, Hyperparameter, Inner, Shared, Slot, Told, declared
from gradtx.codecs import decoded
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete, is_traced
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import (
    compute_dtype,
    default_float,
    safe_increment,
    times,
    value_of,
    widen,
)
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import LeafError, MaskedNode, rate_at, value_at
from gradtx.engine.scalars import finished
from gradtx.tree.present import present, replaced


@declared
class ScheduleFreeState(NamedTuple):
    """The state of `schedule_free`.

    Attributes:
      b1: the weight of the average `x` in the interpolation `y`, where gradients are taken.
      weight_sum: the sum of the weights in the average.
      step_count: the number of steps taken.
      max_lr: the largest learning rate so far.
      base_optimizer_state: the state of the optimizer that updates `z`.
      z: the parameters that this optimizer updates.
    """

    b1: Shared
    weight_sum: Shared
    step_count: Count
    max_lr: Annotated[Hyperparameter, Told("max_learning_rate")]
    base_optimizer_state: Inner
    z: Slot

    def averaged(self, params: Params | None) -> Params:
        """Returns the average of `z`; see `averaged_params`."""
        return _only_averages(self, params)


@declared
class PrimalAveragingState(NamedTuple):
    """The state of `primal_averaging`.

    Attributes:
      b1: the weight of the average `x` in the interpolation `y`, where gradients are taken.
      count: the number of steps taken.
      base_optimizer_state: the state of the optimizer that updates `z`.
      z: the parameters that this optimizer updates.
    """

    b1: Shared
    count: Clock
    base_optimizer_state: Inner
    z: Slot

    def averaged(self, params: Params | None) -> Params:
        """Returns the average of `z`; see `averaged_params`."""
        return _only_averages(self, params)


@functools.partial(piece, ranges={"b1": FRACTION})
def schedule_free(
    base_optimizer: TransformationLike,
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Averages the iterates of an optimizer, so that its learning rate need not decay.

    The optimizer updates `z`, and `x` is the average of all `z`. Gradients are taken between the
    two, at the parameters `y`. With the update `u` of the optimizer,

        z = z + u
        c = max_lr**weight_lr_power / sum(max_lr**weight_lr_power)
        x = (1 - c) * x + c * z
        y = (1 - b1) * z + b1 * x

    where `max_lr` is the largest learning rate so far, and the sum is over all steps. The update of
    the parameters, `c * (z - y) + (1 - b1 * (1 - c)) * u` with the previous `z` and `y`, is
    equivalent. The average is for evaluation; `schedule_free_eval_params` returns it.

    If the optimizer estimates its learning rate, as `prodigy` and `dadapt_adamw` do, that estimate
    multiplies `learning_rate` in the weights: `schedule_free(prodigy(betas=(0.0, 0.999)), 1.0)`.

    `b1` has the effect of momentum, so the optimizer should have none. The optimizer gets gradients
    and parameters in float32 or wider.

    Args:
      base_optimizer: the optimizer, without momentum. It gets the gradients, and `y` as `params`.
      learning_rate: its learning rate, used for the weights; a number, a scalar array, or a
        schedule. `update(..., learning_rate=x)` overrides it here and in `base_optimizer`.
      b1: the interpolation weight of the average, in [0, 1]; with 0, gradients are taken at `z`,
        and the average cannot be recovered. Default: 0.9.
      weight_lr_power: the power of the learning rate in the weights; 0 for equal weights.
        Default: 2.
      state_dtype: the dtype in which `z` is stored. Default: the parameters' dtype, and float32 for
        half precision, in which small steps would be lost to rounding.

    Raises:
      ValueError: `b1` is not in [0, 1], or `update` was called without params.
      TypeError: `state_dtype` is real where parameters are complex, or not floating.

    Source: Defazio et al., "The Road Less Scheduled", arXiv:2405.15682.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return jnp.sum(jnp.abs(p - 3.0))
      >>> tx, p = gradtx.schedule_free(gradtx.sgd(0.5), 0.5), jnp.array([1.05, 0.0])
      >>> state = tx.init(p)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jax.grad(loss)(p), state, p)
      ...     p = p + updates
      >>> print(jnp.round(gradtx.schedule_free_eval_params(state, p), 1))
      [3. 3.]
    """
    base_optimizer = with_extra_args_support(base_optimizer)

    def init(params: Params) -> ScheduleFreeState:
        dtype = default_float()
        return ScheduleFreeState(
            b1=jnp.array(value_of(b1), dtype),
            weight_sum=jnp.zeros((), dtype),
            step_count=jnp.zeros((), jnp.int32),
            max_lr=jnp.zeros((), dtype),
            base_optimizer_state=base_optimizer.init(jax.tree.map(widen, params)),
            z=_stored(params, state_dtype),
        )

    @compiled_when_concrete
    def weigh(state: ScheduleFreeState, rate: Scalar) -> tuple[Array, dict[str, Array]]:
        dtype = state.max_lr.dtype
        max_lr = jnp.maximum(state.max_lr, jnp.asarray(rate, dtype))
        weight = jnp.asarray(max_lr**weight_lr_power, dtype)
        weight_sum = state.weight_sum + weight
        positive = weight_sum > 0
        c = jnp.where(positive, weight / jnp.where(positive, weight_sum, 1), 0)
        return c, {
            "b1": jnp.array(value_of(b1), dtype),
            "weight_sum": weight_sum,
            "step_count": safe_increment(state.step_count),
            "max_lr": max_lr,
        }

    def update(
        updates: Updates, state: ScheduleFreeState, params: Params, **extra: Any
    ) -> tuple[Updates, ScheduleFreeState]:
        rate = value_of(rate_at(learning_rate, state.step_count, extra))
        if (estimate := _estimate(state.base_optimizer_state)) is not None:
            rate = rate * estimate
        c, new = weigh(state._replace(base_optimizer_state=(), z=()), rate)
        move = functools.partial(base_optimizer.update, **extra)
        steps, base, z = _step(move, b1, c, updates, state, params, at_z=False)
        return steps, state._replace(**new, base_optimizer_state=base, z=z)

    inner = (base_optimizer,)
    traits = {"passes_to": inner, "inner": inner, "reads": ("learning_rate",)}
    return coupled(
        ScheduleFreeState, init, update, name="schedule_free", params=True, traits=traits
    )


@functools.partial(piece, ranges={"mu_x": FRACTION, "mu_y": FRACTION})
def primal_averaging(
    base_optimizer: TransformationLike,
    mu_x: ScalarOrSchedule = 0.9967,
    mu_y: Scalar = 0.7,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Computes gradients between an optimizer's iterates and their moving average (GPA).

    Schedule-free learning with an exponential average, so that a schedule of the learning rate is
    still of use. With the update `u` of the optimizer,

        z = z + u
        x = mu_x * x + (1 - mu_x) * z
        y = mu_y * x + (1 - mu_y) * z

    where gradients are taken at the parameters `y`. The optimizer gets `z` as `params`, which its
    weight decay thus reduces, as in the authors' program. The average `x` is for evaluation;
    `averaged_params` returns it. With `mu_x = mu_y` this is Nesterov's method in the form of primal
    averaging. It resembles DiLoCo with one worker, with `mu_x = m**(1/H)` for the momentum `m` of
    the outer optimizer and `H` inner steps: 0.9934, 0.9967 and 0.9984 for 16, 32 and 64 steps.

    Args:
      base_optimizer: the optimizer. It gets gradients and `z` in float32 or wider.
      mu_x: the decay rate of the average, in [0, 1]; a number, a scalar array or a schedule.
        Default: 0.9967.
      mu_y: the weight of the average where gradients are taken, in [0, 1]; with 0, gradients are
        taken at `z`, and the average cannot be recovered. Default: 0.7.
      state_dtype: the dtype in which `z` is stored. Default: the parameters' dtype, and float32 for
        half precision.

    Raises:
      ValueError: `mu_x` or `mu_y` is not in [0, 1], or `update` was called without params.
      TypeError: `state_dtype` is real where parameters are complex, or not floating.

    Source: Defazio et al., "Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs",
    arXiv:2512.17131.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, p = gradtx.primal_averaging(gradtx.sgd(1.0), mu_x=0.5, mu_y=0.5), jnp.zeros(1)
      >>> state = tx.init(p)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([-1.0]), state, p)
      ...     p = p + updates
      >>> print(state.z, p, gradtx.averaged_params(state, p))
      [2.] [1.625] [1.25]
    """
    base_optimizer = with_extra_args_support(base_optimizer)

    def init(params: Params) -> PrimalAveragingState:
        return PrimalAveragingState(
            b1=jnp.array(value_of(mu_y), default_float()),
            count=jnp.zeros((), jnp.int32),
            base_optimizer_state=base_optimizer.init(jax.tree.map(widen, params)),
            z=_stored(params, state_dtype),
        )

    def update(
        updates: Updates, state: PrimalAveragingState, params: Params, **extra: Any
    ) -> tuple[Updates, PrimalAveragingState]:
        c = value_of(1 - value_at(mu_x, state.count))
        move = functools.partial(base_optimizer.update, **extra)
        steps, base, z = _step(move, mu_y, c, updates, state, params, at_z=True)
        return steps, PrimalAveragingState(
            b1=jnp.array(value_of(mu_y), state.b1.dtype),
            count=safe_increment(state.count),
            base_optimizer_state=base,
            z=z,
        )

    traits = {"passes_to": (base_optimizer,), "inner": (base_optimizer,)}
    return coupled(
        PrimalAveragingState, init, update, name="primal_averaging", params=True, traits=traits
    )


def _step(
    move: Callable[..., tuple[Updates, OptState]],
    b1: Scalar,
    c: Scalar,
    updates: Updates,
    state: ScheduleFreeState | PrimalAveragingState,
    params: Params,
    at_z: bool,
) -> tuple[Updates, OptState, Params]:
    """Returns the updates of `y`, the new state of the optimizer, and the new `z`.

    Args:
      move: the `update` of the optimizer of `z`.
      b1: the weight of the average in `y`.
      c: the weight of the new `z` in the average.
      updates: the gradients.
      state: the state, with `base_optimizer_state` and `z`.
      params: the parameters `y`.
      at_z: whether the optimizer gets `z` as parameters instead of `y`.
    """
    trees = {"updates": updates, "params": params, "state.z": state.z}
    given, y, z = present(updates, **trees)
    own = jax.tree.map(_beside, state.z, params) if at_z else params
    wide = jax.tree.map(widen, own)
    moves, base = move(jax.tree.map(widen, updates), state.base_optimizer_state, wide)
    (u,) = present(updates, moves=moves)
    steps, z = _follow(u, y, z, value_of(b1), c)
    steps = [x.astype(jnp.result_type(g)) for x, g in zip(steps, given, strict=True)]
    return replaced(updates, updates, steps), base, replaced(state.z, updates, z)


@compiled_when_concrete
def _follow(
    moves: list[Array], y: list[ArrayLike], z: list[Array], b1: Scalar, c: Scalar
) -> tuple[list[Array], list[Array]]:
    of_z, of_move = finished(c), finished(1 - b1 * (1 - c))

    def one(u: Array, y: ArrayLike, z: Array) -> tuple[Array, Array]:
        own = _beside(z, u)
        wide = jnp.promote_types(u.dtype, compute_dtype(own.dtype))
        u, y, old = u.astype(wide), jnp.asarray(y, wide), own.astype(wide)
        new = (old + u).astype(z.dtype)
        # A narrow `z` is rounded, and the average is that of the rounded values.
        taken = u if own.dtype == wide else _beside(new, u).astype(wide) - old
        return times(of_z, old - y) + times(of_move, taken), new

    pairs = [one(*row) for row in zip(moves, y, z, strict=True)]
    return [move for move, _ in pairs], [z for _, z in pairs]


def _estimate(state: OptState) -> Array | None:
    """Returns the learning rate that an optimizer has estimated, if it has; see `prodigy`."""
    if not isinstance(state, tuple):
        return None
    if "estim_lr" in getattr(state, "_fields", ()):
        return state.estim_lr  # type: ignore[attr-defined]
    return next((x for part in state if (x := _estimate(part)) is not None), None)


def _stored(params: Params, dtype: DTypeLike | None) -> Params:
    """Returns copies of the parameters, the initial `z`."""
    real = dtype is not None and not jnp.issubdtype(dtype, jnp.complexfloating)

    def copy(i: int, p: ArrayLike | None) -> Array | None:
        if p is None:
            return None
        own = jnp.result_type(p)
        if real and jnp.issubdtype(own, jnp.complexfloating):
            told = f"this is {own}, and cannot be stored as state_dtype={jnp.dtype(dtype)}"
            raise LeafError(TypeError, f"params{nth_path(params, i)}: {told}")
        return jnp.array(p, compute_dtype(own) if dtype is None else dtype, copy=True)

    leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
    return treedef.unflatten(copy(i, p) for i, p in enumerate(leaves))


def schedule_free_eval_params(state: OptState, params: Params) -> Params:
    """Returns the averaged parameters of `schedule_free`, at which to evaluate the model.

    `x = y + (1 / b1 - 1) * (y - z)`, where `y` are the parameters in training.

    Args:
      state: the state of `schedule_free`, or one that contains it, such as that of a chain or a
        partition. Parameters outside its partition or mask are returned unchanged.
      params: the parameters in training.

    Returns:
      A pytree like `params`, in its dtypes.

    Raises:
      ValueError: no part of the state has the fields `b1` and `z`, or `z` belongs to other
        parameters, or `b1` is 0, so that the average cannot be recovered.

    Source: Defazio et al., "The Road Less Scheduled", arXiv:2405.15682.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, p = gradtx.schedule_free_sgd(1.0, b1=0.5), jnp.array([0.0])
      >>> state = tx.init(p)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([-1.0]), state, p)
      ...     p = p + updates
      >>> print(state.z, p, gradtx.schedule_free_eval_params(state, p))
      [2.] [1.75] [1.5]
    """
    state = decoded(state)
    found = [s for s in jax.tree.leaves(state, is_leaf=_has_average) if _has_average(s)]
    if not found:
        raise ValueError(
            "schedule_free_eval_params: the state must contain that of schedule_free, with the "
            f"fields b1 and z, got a {type(state).__name__} without them"
        )
    for part in found:
        if not is_traced(part.b1) and bool(jnp.any(part.b1 == 0)):
            raise ValueError(
                "schedule_free_eval_params: b1 must not be 0; the average cannot be recovered then"
            )
        params = _averaged(part.b1, part.z, params)
    return params


def _only_averages(
    state: ScheduleFreeState | PrimalAveragingState, params: Params | None
) -> Params:
    """Returns the averages, with `MaskedNode()` where parameters are masked."""
    if params is None:
        raise ValueError(
            "averaged_params: this average is computed from the parameters in training: call "
            "averaged_params(state, params)"
        )

    def kept(z: Array | MaskedNode | None, x: Array) -> Array | MaskedNode | None:
        return z if z is None or isinstance(z, MaskedNode) else x

    is_leaf = lambda z: z is None or isinstance(z, MaskedNode)  # noqa: E731
    averages = schedule_free_eval_params(state, params)
    return jax.tree.map(kept, state.z, averages, is_leaf=is_leaf)


def _beside(z: Array, x: Array) -> Array:
    """Returns the real part of what is stored in a complex dtype for a real array."""
    return z if jnp.iscomplexobj(x) else jnp.real(z)


def _has_average(node: PyTree) -> bool:
    return hasattr(node, "b1") and hasattr(node, "z")


def _averaged(b1: Array, z: Params, params: Params) -> Params:
    """Replaces the parameters that belong to one part of a state by their averages."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)

    def one(i: int, y: ArrayLike | None, z: ArrayLike | MaskedNode | None) -> ArrayLike | None:
        if z is None or y is None or isinstance(z, MaskedNode):
            return y
        if jnp.shape(y) != jnp.shape(z):
            raise ValueError(
                f"schedule_free_eval_params: params{nth_path(params, i)} has shape {jnp.shape(y)}, "
                f"but state.z{nth_path(params, i)} has shape {jnp.shape(z)}"
            )
        x, z = widen(y), widen(z)
        away = x - _beside(z, x)
        return jnp.asarray(x + times(1 / jnp.real(b1) - 1, away), jnp.result_type(y))

    try:
        rows = align(treedef, z, "state.z", params, "params")
    except ValueError as error:
        raise ValueError(f"schedule_free_eval_params: {error}") from None
    return treedef.unflatten(one(i, *row) for i, row in enumerate(zip(leaves, rows, strict=True)))
