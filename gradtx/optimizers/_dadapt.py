"""AdamW with D-Adaptation: a learning rate from a lower bound of the distance to the solution."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx import tree
from gradtx._roles import KEPT, Count, Hyperparameter, Rate, Shared, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.numerics import ema, ratio, times
from gradtx.engine.scalars import finished
from gradtx.transforms.slots import as_slots, as_updates, zero_slots
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.present import common_dtype, present, replaced


@declared
class DAdaptAdamWState(NamedTuple):
    """The state of `dadapt_adamw`.

    Attributes:
      exp_avg: moving average of gradients, each times its step size `d * learning_rate`.
      exp_avg_sq: moving average of squared gradients.
      grad_sum: the same as `exp_avg`, with the larger decay rate `sqrt(b2)`.
      estim_lr: the estimate `d` of the distance to the solution.
      numerator_weighted: moving average of the products from which `d` is estimated.
      count: the number of steps taken.
      learning_rate: the rate that the last step used; before any step, that of the first step.
    """

    exp_avg: Slot
    exp_avg_sq: UnsignedSlot
    grad_sum: Slot
    estim_lr: Hyperparameter
    numerator_weighted: Shared
    count: Count
    learning_rate: Rate = KEPT


@optimizer(
    "Defazio and Mishchenko, 'Learning-Rate-Free Learning by D-Adaptation', arXiv:2301.07733",
    family="learning-rate-free",
    acts_on="tree",
    probe={"learning_rate": 1.0, "estim_lr0": 0.01},
    scale_free=True,
)
def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
) -> GradientTransformation:
    """AdamW with D-Adaptation: its learning rate is an estimate of the distance to the solution.

    With `b1, b2 = betas` and `t` from 1,

        w = d * learning_rate * sqrt(1-b2**t) / (1-b1**t)
        r = sqrt(b2) * r + (1-sqrt(b2)) * w * <g, s / (sqrt(v) + eps)>
        s = sqrt(b2) * s + (1-sqrt(b2)) * w * g
        m = b1*m + (1-b1) * w * g;  v = b2*v + (1-b2) * |g|^2
        d = max(d, r / ((1-sqrt(b2)) * sum(|s|)))
        p - m / (sqrt(v) + eps) - weight_decay * w * p

    where sums and products are over all leaves, and `r` is computed with the `s` and `v` of the
    last step. `d` never decreases; it is a lower bound of the distance to the solution in the
    infinity norm.

    Args:
      learning_rate: a factor of `d`, preferably a schedule that starts or peaks at 1; a number, a
        scalar array or a schedule. Default: 1.
      betas: the decay rates `b1` and `b2`. Default: 0.9 and 0.999.
      eps: added to the root. Default: 1e-8.
      estim_lr0: the first `d`, positive and less than the distance to the solution. Default: 1e-6.
      weight_decay: the coefficient of decoupled weight decay, which `w` multiplies. Default: 0.

    Raises:
      ValueError: `update` was called without params.
      TypeError: parameters are complex, for which the bound is not defined.

    Source: Defazio and Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", arXiv:2301.07733.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.dadapt_adamw(estim_lr0=0.01)
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> for g in ([1.0, -2.0], [4.0, -8.0]):
      ...     updates, state = tx.update(jnp.array(g), state, params)
      ...     params = params + updates
      >>> print(params, state.estim_lr)
      [-0.0194...  0.0194...] 0.0748...
    """
    b1, b2 = betas
    slow = b2**0.5

    def init(params: Params) -> DAdaptAdamWState:
        dtype = common_dtype(params)
        return DAdaptAdamWState(
            exp_avg=zero_slots(params),
            exp_avg_sq=zero_slots(params),
            grad_sum=zero_slots(params),
            estim_lr=jnp.array(estim_lr0, dtype),
            numerator_weighted=jnp.zeros((), dtype),
            count=KEPT,
        )

    @compiled_when_concrete
    def step(
        updates: Updates, state: DAdaptAdamWState, params: Params, rate: Scalar
    ) -> tuple[Updates, DAdaptAdamWState]:
        named = {f"state.{n}": x for n, x in zip(_TREES, state, strict=False)}
        given, p, m, v, s = present(updates, updates=updates, params=params, **named)
        g, p = as_slots(given, m), as_slots(p, m)
        d, dtype = state.estim_lr, state.estim_lr.dtype
        w = finished((d * rate * adam_correction(b1, b2, step_number(state.count))).astype(dtype))

        along = tree.vdot(g, [ratio(x, y, eps) for x, y in zip(s, v, strict=True)])
        r = ema((w * along).astype(dtype), state.numerator_weighted, slow)
        s = [ema(times(w, x), y, slow) for x, y in zip(g, s, strict=True)]
        m = [ema(times(w, x), y, b1) for x, y in zip(g, m, strict=True)]
        v = [ema(jnp.square(x), y, b2) for x, y in zip(g, v, strict=True)]
        bound = over_one_norm(r / (1 - slow), s)
        moves = [
            -(ratio(x, y, eps) + times(weight_decay * w, z))
            for x, y, z in zip(m, v, p, strict=True)
        ]
        return replaced(updates, updates, as_updates(moves, given)), DAdaptAdamWState(
            exp_avg=replaced(state.exp_avg, updates, m),
            exp_avg_sq=replaced(state.exp_avg_sq, updates, v),
            grad_sum=replaced(state.grad_sum, updates, s),
            estim_lr=jnp.maximum(d, bound),
            numerator_weighted=r,
            count=state.count,
        )

    def update(
        updates: Updates,
        state: DAdaptAdamWState,
        params: Params,
        *,
        learning_rate: Scalar,
        **extra: Any,
    ) -> tuple[Updates, DAdaptAdamWState]:
        del extra
        return step(updates, state, params, learning_rate)

    return coupled(
        DAdaptAdamWState,
        init,
        update,
        name="scale_by_dadapt_adam",
        params=True,
        real_only=True,
        rate=learning_rate,
    )


_TREES = ("exp_avg", "exp_avg_sq", "grad_sum")


def adam_correction(b1: Scalar, b2: Scalar, t: Scalar) -> Array:
    """Returns the factor by which bias correction multiplies Adam's step.

    `sqrt(1-b2**t) / (1-b1**t)`, which neglects only the effect on `eps`.

    Args:
      b1: the decay rate of the average of gradients.
      b2: the decay rate of the average of squares.
      t: the number of the step, 1 at the first.
    """
    return jnp.sqrt(gathered_weight(b2, t)) / gathered_weight(b1, t)


def over_one_norm(numerator: Array, leaves: list[Array]) -> Array:
    """Returns `numerator / sum(|x|)` over all leaves, and 0 where that sum is 0.

    Args:
      numerator: a real scalar.
      leaves: real arrays.
    """
    total = tree.sum([jnp.abs(x) for x in leaves])
    positive = total > 0
    bound = jnp.where(positive, numerator / jnp.where(positive, total, 1), 0)
    return bound.astype(numerator.dtype)
