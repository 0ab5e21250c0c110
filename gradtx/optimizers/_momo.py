"""MoMo: momentum, with a step size that a model of the loss bounds."""

from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from gradtx import tree
from gradtx._roles import (
    KEPT,
    Count,
    Hyperparameter,
    Rate,
    Shared,
    Slot,
    Told,
    UnsignedSlot,
    declared,
)
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
from gradtx.engine.numerics import ema, over, ratio, times
from gradtx.engine.scalars import finished
from gradtx.transforms.slots import as_slots, as_updates, zero_slots
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.present import common_dtype, present, replaced

MOMO = "Schaipp et al., 'MoMo: Momentum Models for Adaptive Learning Rates', arXiv:2305.07583"


@declared
class MomoState(NamedTuple):
    """The state of `momo`.

    Attributes:
      exp_avg: moving average of gradients.
      barf: moving average of losses.
      gamma: moving average of the products `<g, p>` of gradients and parameters.
      lb: the lower bound of the loss.
      count: the number of steps taken.
      learning_rate: the rate that the last step used; before any step, that of the first step.
    """

    exp_avg: Slot
    barf: Annotated[Shared, Told("average_loss")]
    gamma: Shared
    lb: Annotated[Hyperparameter, Told("lower_bound")]
    count: Count
    learning_rate: Rate = KEPT


@declared
class MomoAdamState(NamedTuple):
    """The state of `momo_adam`.

    Attributes:
      exp_avg: moving average of gradients.
      exp_avg_sq: moving average of squared gradients.
      barf: moving average of losses.
      gamma: moving average of the products `<g, p>` of gradients and parameters.
      lb: the lower bound of the loss.
      count: the number of steps taken.
      learning_rate: the rate that the last step used; before any step, that of the first step.
    """

    exp_avg: Slot
    exp_avg_sq: UnsignedSlot
    barf: Annotated[Shared, Told("average_loss")]
    gamma: Shared
    lb: Annotated[Hyperparameter, Told("lower_bound")]
    count: Count
    learning_rate: Rate = KEPT


class _Model(NamedTuple):
    """A linear model of the loss, from moving averages."""

    loss: Array  # the average of losses
    offset: Array  # the average of <g, p>
    slope: list[Array]  # the average of gradients
    direction: list[Array]  # the same, preconditioned
    weight: Scalar  # the sum of the weights in these averages

    def step(
        self, p: list[Array], rate: Scalar, decay: Scalar, bound: Array, adapt_from: Scalar | None
    ) -> tuple[list[Array], Array]:
        """Returns the step to where the linear model meets the bound, and the adapted bound.

        The step size `tau` is at most `rate / weight`.
        """
        dtype = self.loss.dtype
        shrink = jnp.asarray(1 + rate * decay, dtype)
        along = tree.vdot(self.slope, p).real.astype(dtype)
        square = tree.vdot(self.slope, self.direction).real.astype(dtype)
        # The products nearly cancel, so they are subtracted before the loss is added.
        height = shrink * self.loss + (along - shrink * self.offset)
        if adapt_from is not None:
            floor = shrink * self.weight
            lowered = jnp.maximum(height / (2 * floor), adapt_from)
            bound = jnp.where(height < floor * bound, lowered, bound)
        gap = jnp.maximum(height - shrink * self.weight * bound, 0)
        most = rate / self.weight
        positive = square > 0
        # A square that underflows would give an infinite step, or NaN for a gap of 0.
        tau = finished(
            jnp.where(
                positive,
                jnp.minimum(gap / jnp.where(positive, square, 1), most),
                jnp.where(gap > 0, most, 0),
            )
        )
        if adapt_from is not None:
            # `tau * square / 2`, in a form without the product of 0 and infinity
            half = jnp.minimum(gap, most * square) / 2
            reached = self.loss + (along - self.offset) - half
            bound = jnp.maximum(reached / self.weight, adapt_from)
        moves = [
            -(times(tau / shrink, q) + times(rate * decay / shrink, x))
            for q, x in zip(self.direction, p, strict=True)
        ]
        return moves, bound.astype(dtype)


@optimizer(
    MOMO,
    family="learning-rate-free",
    acts_on="tree",
    probe={"learning_rate": 1.0},
    scale_free=True,
    constants=("beta",),  # its step size is a small difference of averages
)
def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: Scalar = 0.9,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformation:
    """MoMo: SGD with momentum, with steps bounded by a model of the loss.

    Moving averages with the decay rate `beta` start from the first values: `d` of gradients, `f` of
    losses, `gamma` of `<g, p>`. They form a linear model of the loss, whose value at `p` is
    `f + <d, p> - gamma`; Polyak's step leads to where the model meets the lower bound. With
    `c = 1 + learning_rate * weight_decay`,

        tau = min(learning_rate, max(c * (f - gamma - lower_bound) + <d, p>, 0) / norm(d)^2)
        (p - tau * d) / c

    The loss comes with each call, `update(..., value=loss)`.

    Args:
      learning_rate: the largest step size, better too large than too small; a number, a scalar
        array or a schedule. Default: 1.
      beta: the decay rate of the averages, in [0, 1). Default: 0.9.
      lower_bound: a lower bound of the loss, or an initial guess of it. Default: 0.
      weight_decay: the coefficient of the penalty `norm(p)^2 / 2`, which is added to the model of
        the loss. Default: 0.
      adapt_lower_bound: whether to estimate the bound, never below `lower_bound`: where the model's
        value is below the bound, the bound becomes half of that value; after each step it is set to
        the model's estimate. Default: False.

    Raises:
      TypeError: `update` was called without `value`.
      ValueError: `update` was called without params.

    Source: Schaipp et al., "MoMo: Momentum Models for Adaptive Learning Rates", arXiv:2305.07583.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return jnp.sum(p**2)
      >>> tx, p = gradtx.momo(), jnp.array([1.0, 2.0])
      >>> value, grad = jax.value_and_grad(loss)(p)
      >>> updates, state = tx.update(grad, tx.init(p), p, value=value)
      >>> print(p + updates)
      [0.5 1. ]
    """
    adapt_from = lower_bound if adapt_lower_bound else None

    def init(params: Params) -> MomoState:
        dtype = common_dtype(params)
        return MomoState(
            exp_avg=zero_slots(params),
            barf=jnp.zeros((), dtype),
            gamma=jnp.zeros((), dtype),
            lb=jnp.array(lower_bound, dtype),
            count=KEPT,
        )

    @compiled_when_concrete
    def step(
        updates: Updates, state: MomoState, params: Params, rate: Scalar, value: Scalar
    ) -> tuple[Updates, MomoState]:
        trees = {"updates": updates, "params": params, "state.exp_avg": state.exp_avg}
        given, p, d = present(updates, **trees)
        g, p = as_slots(given, d), as_slots(p, d)
        first = state.count == 0

        def average(new: Array, old: Array) -> Array:
            return jnp.where(first, new, ema(new, old, beta))

        d = [average(x, y) for x, y in zip(g, d, strict=True)]
        dtype = state.barf.dtype
        barf = average(jnp.asarray(value, dtype), state.barf)
        gamma = average(tree.vdot(g, p).real.astype(dtype), state.gamma)
        model = _Model(barf, gamma, d, d, 1)
        moves, lb = model.step(p, rate, weight_decay, state.lb, adapt_from)
        return replaced(updates, updates, as_updates(moves, given)), MomoState(
            replaced(state.exp_avg, updates, d), barf, gamma, lb, state.count
        )

    def update(
        updates: Updates,
        state: MomoState,
        params: Params,
        *,
        learning_rate: Scalar,
        value: Scalar,
        **extra: Any,
    ) -> tuple[Updates, MomoState]:
        del extra
        return step(updates, state, params, learning_rate, value)

    return coupled(
        MomoState,
        init,
        update,
        name="scale_by_momo",
        needs=("value",),
        params=True,
        rate=learning_rate,
    )


@optimizer(
    MOMO + ", MoMo-Adam",
    family="learning-rate-free",
    acts_on="tree",
    probe={"learning_rate": 0.1},
    scale_free=True,
)
def momo_adam(
    learning_rate: ScalarOrSchedule = 0.01,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformation:
    """MoMo-Adam: Adam, with steps bounded by a model of the loss.

    As `momo`, with averages that start at 0: `d`, `f` and `gamma` with the decay rate `b1`, `v` of
    squared gradients with `b2`. With `t` from 1, `rho = 1 - b1**t`,
    `q = d / (sqrt(v / (1-b2**t)) + eps)` and `c = 1 + learning_rate * weight_decay`,

        tau = min(learning_rate / rho,
                  max(c * (f - gamma - rho * lower_bound) + <d, p>, 0) / <d, q>)
        (p - tau * q) / c

    The loss comes with each call, `update(..., value=loss)`.

    Args:
      learning_rate: the largest step size, better too large than too small; a number, a scalar
        array or a schedule. Default: 0.01.
      b1: the decay rate of the averages of gradients, losses and products. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      lower_bound: a lower bound of the loss, or an initial guess of it. Default: 0.
      weight_decay: the coefficient of the penalty `norm(p)^2 / 2`, which is added to the model of
        the loss; its norm is weighted by the divisor of `q`. Default: 0.
      adapt_lower_bound: whether to estimate the bound, never below `lower_bound`: where the model's
        value is below the bound, the bound becomes half of that value; after each step it is set to
        the model's estimate. Default: False.

    Raises:
      TypeError: `update` was called without `value`, or parameters are complex.
      ValueError: `update` was called without params.

    Source: Schaipp et al., "MoMo: Momentum Models for Adaptive Learning Rates", arXiv:2305.07583,
    MoMo-Adam.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> tx, p = gradtx.momo_adam(1.0), jnp.array([1.0, 2.0])
      >>> updates, state = tx.update(jnp.array([2.0, 4.0]), tx.init(p), p, value=3.0)
      >>> print(updates)
      [-0.5 -0.5]
    """
    adapt_from = lower_bound if adapt_lower_bound else None

    def init(params: Params) -> MomoAdamState:
        dtype = common_dtype(params)
        return MomoAdamState(
            exp_avg=zero_slots(params),
            exp_avg_sq=zero_slots(params),
            barf=jnp.zeros((), dtype),
            gamma=jnp.zeros((), dtype),
            lb=jnp.array(lower_bound, dtype),
            count=KEPT,
        )

    @compiled_when_concrete
    def step(
        updates: Updates, state: MomoAdamState, params: Params, rate: Scalar, value: Scalar
    ) -> tuple[Updates, MomoAdamState]:
        named = {"state.exp_avg": state.exp_avg, "state.exp_avg_sq": state.exp_avg_sq}
        given, p, d, v = present(updates, updates=updates, params=params, **named)
        g, p = as_slots(given, d), as_slots(p, d)
        t, dtype = step_number(state.count), state.barf.dtype

        d = [ema(x, y, b1) for x, y in zip(g, d, strict=True)]
        v = [ema(jnp.square(x), y, b2) for x, y in zip(g, v, strict=True)]
        barf = ema(jnp.asarray(value, dtype), state.barf, b1)
        gamma = ema(tree.vdot(g, p).astype(dtype), state.gamma, b1)
        v_weight = gathered_weight(b2, t)
        q = [ratio(x, over(y, v_weight), eps) for x, y in zip(d, v, strict=True)]
        model = _Model(barf, gamma, d, q, gathered_weight(b1, t).astype(dtype))
        moves, lb = model.step(p, rate, weight_decay, state.lb, adapt_from)
        return replaced(updates, updates, as_updates(moves, given)), MomoAdamState(
            exp_avg=replaced(state.exp_avg, updates, d),
            exp_avg_sq=replaced(state.exp_avg_sq, updates, v),
            barf=barf,
            gamma=gamma,
            lb=lb,
            count=state.count,
        )

    def update(
        updates: Updates,
        state: MomoAdamState,
        params: Params,
        *,
        learning_rate: Scalar,
        value: Scalar,
        **extra: Any,
    ) -> tuple[Updates, MomoAdamState]:
        del extra
        return step(updates, state, params, learning_rate, value)

    return coupled(
        MomoAdamState,
        init,
        update,
        name="scale_by_momo_adam",
        needs=("value",),
        params=True,
        real_only=True,
        rate=learning_rate,
    )
