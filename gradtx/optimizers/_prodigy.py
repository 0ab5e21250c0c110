"""Prodigy: D-Adaptation with weights that make the estimate grow faster."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx import tree
from gradtx._roles import KEPT, Count, Hyperparameter, Rate, Shared, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    GradientTransformation,
    MaskOrFn,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.masks import flags
from gradtx.engine.numerics import ema, ratio, times
from gradtx.engine.paths import is_none
from gradtx.engine.scalars import finished
from gradtx.optimizers._dadapt import adam_correction, over_one_norm
from gradtx.transforms.slots import as_slots, as_updates, copied_slots, zero_slots
from gradtx.tree.moments import step_number
from gradtx.tree.present import common_dtype, present, replaced


@declared
class ProdigyState(NamedTuple):
    """The state of `prodigy`.

    Attributes:
      exp_avg: moving average of gradients, each times the estimate `d` at its step.
      exp_avg_sq: moving average of squared gradients, times `d^2`.
      grad_sum: weighted sum of gradients.
      params0: the parameters at the start.
      estim_lr: the estimate `d` of the distance to the solution.
      numerator_weighted: weighted sum of the products from which `d` is estimated.
      count: the number of steps taken.
      learning_rate: the rate that the last step used; before any step, that of the first step.
    """

    exp_avg: Slot
    exp_avg_sq: UnsignedSlot
    grad_sum: Slot
    params0: Slot
    estim_lr: Hyperparameter
    numerator_weighted: Shared
    count: Count
    learning_rate: Rate = KEPT


@optimizer(
    "Mishchenko and Defazio, 'Prodigy: An Expeditiously Adaptive Parameter-Free Learner', "
    "arXiv:2306.06101",
    family="learning-rate-free",
    acts_on="tree",
    probe={"learning_rate": 1.0, "estim_lr0": 0.01},
    scale_free=True,
)
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    beta3: Scalar | None = None,
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    estim_lr_coef: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    safeguard_warmup: bool = False,
    weight_decay_mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Prodigy: D-Adaptation for AdamW with a faster growing estimate of the distance.

    With `b1, b2 = betas`, `t` from 1 and `d_0 = estim_lr0`,

        w = d * learning_rate * sqrt(1-b2**t) / (1-b1**t)
        r = beta3 * r + d / d_0 * w * <g, p_0 - p>
        s = beta3 * s + d / d_0 * w * g
        m = b1*m + (1-b1) * d * g;  v = b2*v + (1-b2) * d^2 * |g|^2
        d = max(d, estim_lr_coef * r / sum(|s|))
        p - w * (m / (sqrt(v) + d * eps) + weight_decay * p)

    where sums and products are over all leaves. The last line uses the `w` computed in the first
    line. The start `p_0` is stored in float32 or wider.

    Args:
      learning_rate: a factor of `d`, preferably a schedule that starts or peaks at 1; a number, a
        scalar array or a schedule. Default: 1.
      betas: the decay rates `b1` and `b2`. Default: 0.9 and 0.999.
      beta3: the decay rate of the sums for `d`. Default: `sqrt(b2)`.
      eps: added to the root, in units of `d`. Default: 1e-8.
      estim_lr0: the first `d`, positive and less than the distance to the solution. Default: 1e-6.
      estim_lr_coef: a factor of the estimates. Default: 1.
      weight_decay: the coefficient of decoupled weight decay, which `w` multiplies. Default: 0.
      safeguard_warmup: whether `s` uses `d` in place of `w`, so that a long warm-up, in which `w`
        is small, does not inflate the estimate. Default: False.
      weight_decay_mask: which parameters decay: a pytree of booleans, or a function of the
        parameters that returns one. Default: all.

    Raises:
      ValueError: `update` was called without params, or the mask differs from them in structure.
      TypeError: parameters are complex, for which the estimate is not defined.

    Source: Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
    arXiv:2306.06101.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.prodigy(estim_lr0=0.01)
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> for g in ([1.0, -2.0], [4.0, -8.0], [4.0, -8.0]):
      ...     updates, state = tx.update(jnp.array(g), state, params)
      ...     params = params + updates
      >>> print(state.estim_lr)
      0.0119...
    """
    b1, b2 = betas
    b3 = b2**0.5 if beta3 is None else beta3
    mask = True if weight_decay_mask is None else weight_decay_mask

    def init(params: Params) -> ProdigyState:
        flags(mask, params, "params")  # raises for a mask that does not fit
        dtype = common_dtype(params)
        return ProdigyState(
            exp_avg=zero_slots(params),
            exp_avg_sq=zero_slots(params),
            grad_sum=zero_slots(params),
            params0=copied_slots(params),
            estim_lr=jnp.array(estim_lr0, dtype),
            numerator_weighted=jnp.zeros((), dtype),
            count=KEPT,
        )

    @compiled_when_concrete
    def step(
        updates: Updates, state: ProdigyState, params: Params, rate: Scalar
    ) -> tuple[Updates, ProdigyState]:
        named = {f"state.{n}": x for n, x in zip(_TREES, state, strict=False)}
        given, p, m, v, s, p0 = present(updates, updates=updates, params=params, **named)
        g, p = as_slots(given, m), as_slots(p, m)
        d, dtype = state.estim_lr, state.estim_lr.dtype
        w = finished((d * rate * adam_correction(b1, b2, step_number(state.count))).astype(dtype))

        weight = (d / estim_lr0).astype(dtype)
        back = tree.vdot(g, [x0 - x for x0, x in zip(p0, p, strict=True)])
        r = (times(b3, state.numerator_weighted) + weight * w * back).astype(dtype)
        in_sum = finished(weight * (d if safeguard_warmup else w))
        s = [times(b3, y) + times(in_sum, x) for x, y in zip(g, s, strict=True)]
        m = [ema(times(d, x), y, b1) for x, y in zip(g, m, strict=True)]
        v = [ema(jnp.square(times(d, x)), y, b2) for x, y in zip(g, v, strict=True)]
        d = finished(jnp.maximum(d, over_one_norm(times(estim_lr_coef, r), s)))
        with_none = jax.tree.leaves(updates, is_leaf=is_none)
        pairs = zip(with_none, flags(mask, params, "params"), strict=True)
        decays = [flag for u, flag in pairs if u is not None]
        moves = [
            -times(w, ratio(x, y, d * eps) + (times(weight_decay, z) if decay else 0))
            for x, y, z, decay in zip(m, v, p, decays, strict=True)
        ]
        return replaced(updates, updates, as_updates(moves, given)), ProdigyState(
            exp_avg=replaced(state.exp_avg, updates, m),
            exp_avg_sq=replaced(state.exp_avg_sq, updates, v),
            grad_sum=replaced(state.grad_sum, updates, s),
            params0=state.params0,
            estim_lr=d,
            numerator_weighted=r,
            count=state.count,
        )

    def update(
        updates: Updates,
        state: ProdigyState,
        params: Params,
        *,
        learning_rate: Scalar,
        **extra: Any,
    ) -> tuple[Updates, ProdigyState]:
        del extra
        return step(updates, state, params, learning_rate)

    return coupled(
        ProdigyState,
        init,
        update,
        name="scale_by_prodigy",
        params=True,
        real_only=True,
        rate=learning_rate,
    )


_TREES = ("exp_avg", "exp_avg_sq", "grad_sum", "params0")
