"""Learning without a schedule: the average of the iterates takes the place of a decaying rate."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    ScalarOrSchedule,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete, is_traced
from gradtx.engine.coupled import coupled, present, replaced
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import (
    compute_dtype,
    default_float,
    finished,
    safe_increment,
    times,
    value_of,
    widen,
)
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.roles import Count, Hyperparameter, Inner, Shared, Slot, Told, declared
from gradtx.engine.rules import LeafError, MaskedNode, rate_at


@declared
class ScheduleFreeState(NamedTuple):
    """The state of `schedule_free`.

    Attributes:
      b1: how near to the average the gradients are taken.
      weight_sum: the sum of the weights in the average.
      step_count: the number of steps taken.
      max_lr: the largest learning rate so far.
      base_optimizer_state: the state of the optimizer that moves `z`.
      z: the parameters that this optimizer moves.
    """

    b1: Shared
    weight_sum: Shared
    step_count: Count
    max_lr: Annotated[Hyperparameter, Told("max_learning_rate")]
    base_optimizer_state: Inner
    z: Slot


@piece
def schedule_free(
    base_optimizer: Any,
    learning_rate: ScalarOrSchedule,
    b1: Any = 0.9,
    weight_lr_power: Any = 2.0,
    state_dtype: Any | None = None,
) -> GradientTransformation:
    """Averages what an optimizer does, so that its learning rate need not decay.

    The optimizer moves `z`, and `x` is the average of all `z`. Gradients are taken between them, at
    the parameters `y`. With a step `u` of the optimizer,

        z = z + u
        c = max_lr**weight_lr_power / sum(max_lr**weight_lr_power)
        x = (1 - c) * x + c * z
        y = (1 - b1) * z + b1 * x

    where `max_lr` is the largest rate so far, and the sum is over all steps. The parameters move by
    `c * (z - y) + (1 - b1 * (1 - c)) * u`, with the former `z` and `y`, which is the same. The
    average is for evaluation: get it with `schedule_free_eval_params`.

    `b1` does the work of a momentum; give it an optimizer without one. What the optimizer sees is
    in float32 or wider.

    Args:
      base_optimizer: the optimizer, without momentum. It gets the gradients, and `y` for params.
      learning_rate: its learning rate, for the weights; a number, a scalar array, or a schedule.
        `update(..., learning_rate=x)` takes the place of both.
      b1: how near to the average gradients are taken, in [0, 1]; with 0 they are taken at `z`, and
        there is no average to get. Default: 0.9.
      weight_lr_power: the power of the rate in the weights; 0 for the plain mean. Default: 2.
      state_dtype: the dtype in which `z` is stored. Default: the parameters' dtype, and float32 for
        half precision, in which small steps would be lost.

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
    if isinstance(b1, (int, float)) and not 0 <= b1 <= 1:
        raise ValueError(f"schedule_free: b1 is {b1!r}, and must be in [0, 1]")
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
    def follow(
        moves: list[Array], y: list[Any], z: list[Array], state: ScheduleFreeState, rate: Any
    ) -> tuple[list[Array], list[Array], dict[str, Array]]:
        dtype = state.max_lr.dtype
        max_lr = jnp.maximum(state.max_lr, jnp.asarray(rate, dtype))
        weight = jnp.asarray(max_lr**weight_lr_power, dtype)
        weight_sum = state.weight_sum + weight
        positive = weight_sum > 0
        c = jnp.where(positive, weight / jnp.where(positive, weight_sum, 1), 0)
        c, of_move = finished(c), finished(1 - b1 * (1 - c))

        def one(u: Array, y: Any, z: Array) -> tuple[Array, Array]:
            own = _beside(z, u)
            wide = jnp.promote_types(u.dtype, compute_dtype(own.dtype))
            u, y, old = u.astype(wide), jnp.asarray(y, wide), own.astype(wide)
            new = (old + u).astype(z.dtype)
            # A narrow `z` does not take the whole step, and the average is that of what it takes.
            taken = u if own.dtype == wide else _beside(new, u).astype(wide) - old
            return times(c, old - y) + times(of_move, taken), new

        pairs = [one(*row) for row in zip(moves, y, z, strict=True)]
        new = {
            "b1": jnp.asarray(value_of(b1), dtype),
            "weight_sum": weight_sum,
            "step_count": safe_increment(state.step_count),
            "max_lr": max_lr,
        }
        return [move for move, _ in pairs], [z for _, z in pairs], new

    def update(
        updates: Updates, state: ScheduleFreeState, params: Params, **extra: Any
    ) -> tuple[Updates, ScheduleFreeState]:
        trees = {"updates": updates, "params": params, "state.z": state.z}
        given, y, z = present(updates, **trees)
        rate = value_of(rate_at(learning_rate, state.step_count, extra))
        moves, base = base_optimizer.update(
            jax.tree.map(widen, updates),
            state.base_optimizer_state,
            jax.tree.map(widen, params),
            **extra,
        )
        (u,) = present(updates, moves=moves)
        scalars = state._replace(base_optimizer_state=(), z=())
        steps, z, new = follow(u, y, z, scalars, rate)
        steps = [x.astype(jnp.result_type(g)) for x, g in zip(steps, given, strict=True)]
        new_z = replaced(state.z, updates, z)
        state = state._replace(**new, base_optimizer_state=base, z=new_z)
        return replaced(updates, updates, steps), state

    return coupled(ScheduleFreeState, init, update, name="schedule_free", params=True)


def _stored(params: Params, dtype: Any | None) -> Params:
    """Makes copies of the parameters, in which `z` starts."""
    if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
        raise LeafError(TypeError, f"state_dtype is {jnp.dtype(dtype)}, which is not floating")
    real = dtype is not None and not jnp.issubdtype(dtype, jnp.complexfloating)

    def copy(i: int, p: Any) -> Any:
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
    """Gives the averaged parameters of `schedule_free`, which are those to evaluate.

    `x = y + (1 / b1 - 1) * (y - z)`, where `y` are the parameters in training.

    Args:
      state: the state of `schedule_free`, or one in which it stands, such as that of a chain or a
        partition. Parameters that a partition or a mask gives to others are given as they are.
      params: the parameters in training.

    Returns:
      A tree like `params`, in its dtypes.

    Raises:
      ValueError: nothing in the state has the fields `b1` and `z`, or these are not for the same
        parameters, or `b1` is 0, so that there is no average.

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
    found = [s for s in jax.tree.leaves(state, is_leaf=_has_average) if _has_average(s)]
    if not found:
        raise ValueError(
            "schedule_free_eval_params: wants the state of schedule_free, with the fields b1 and "
            f"z, and found them nowhere in {type(state).__name__}"
        )
    for part in found:
        if not is_traced(part.b1) and bool(jnp.any(part.b1 == 0)):
            raise ValueError(
                "schedule_free_eval_params: b1 is 0, so that the parameters hold no average"
            )
        params = _averaged(part.b1, part.z, params)
    return params


def _beside(z: Array, x: Array) -> Array:
    """Gives the real part of what is stored as complex numbers beside a real array."""
    return z if jnp.iscomplexobj(x) else jnp.real(z)


def _has_average(node: Any) -> bool:
    return hasattr(node, "b1") and hasattr(node, "z")


def _averaged(b1: Array, z: Params, params: Params) -> Params:
    """Puts the averages in the place of the parameters that belong to one part of a state."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)

    def one(i: int, y: Any, z: Any) -> Any:
        if z is None or y is None or isinstance(z, MaskedNode):
            return y
        if jnp.shape(y) != jnp.shape(z):
            raise ValueError(
                f"schedule_free_eval_params: params{nth_path(params, i)} has shape {jnp.shape(y)}, "
                f"state.z{nth_path(params, i)} has shape {jnp.shape(z)}"
            )
        x, z = widen(y), widen(z)
        away = x - _beside(z, x)
        return jnp.asarray(x + times(1 / jnp.real(b1) - 1, away), jnp.result_type(y))

    try:
        rows = align(treedef, z, "state.z", params, "params")
    except ValueError as error:
        raise ValueError(f"schedule_free_eval_params: {error}") from None
    return treedef.unflatten(one(i, *row) for i, row in enumerate(zip(leaves, rows, strict=True)))
