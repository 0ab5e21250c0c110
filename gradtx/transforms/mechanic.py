"""Mechanic: a learning rate tuner for other optimizers."""

import functools
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from gradtx import tree
from gradtx._arguments import POSITIVE
from gradtx._roles import Count, Hyperparameter, Inner, Shared, Slot, Told, declared
from gradtx.engine.base import (
    GradientTransformation,
    Params,
    Scalar,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import safe_increment, times
from gradtx.engine.scalars import finished
from gradtx.transforms.slots import as_slots, as_updates, copied_slots
from gradtx.tree.norms import safe_sqrt
from gradtx.tree.present import common_dtype, present, replaced


@declared
class MechanicState(NamedTuple):
    """The state of `mechanize`.

    Attributes:
      base_optimizer_state: the state of the optimizer whose steps are scaled.
      count: the number of steps taken.
      r: the reward of each tuner, `[num_betas]`.
      m: the decaying maximum of `|h|`, the changes of the loss, for each tuner, `[num_betas]`.
      v: the decaying sum of `h**2`, for each tuner, `[num_betas]`.
      s: the scale of each tuner, `[num_betas]`; the steps are scaled by their sum.
      x0: the initial parameters.
    """

    base_optimizer_state: Inner
    count: Count
    r: Shared
    m: Shared
    v: Shared
    s: Annotated[Hyperparameter, Told("mechanic_scales")]
    x0: Slot


@functools.partial(piece, constants=("s_init", "eps", "weight_decay"), ranges={"eps": POSITIVE})
def mechanize(
    base_optimizer: TransformationLike,
    weight_decay: Scalar = 1e-2,
    eps: Scalar = 1e-8,
    s_init: Scalar = 1e-6,
    num_betas: int = 6,
) -> GradientTransformation:
    """Estimates the scale of an optimizer's steps, and with it the learning rate.

    The parameters are their initial value plus a scaled sum of the optimizer's steps `u`,
    `p = p_0 + S * D` with `D = sum(u)`. Several tuners, with decay rates `b` of 0.9, 0.99, 0.999
    and so on, each learn a scale from the changes of the loss, and `S` is the sum of their scales:

        D = (p - p_0) / (S + eps)
        h = <D, g + weight_decay * S * norm(g) / (norm(p) + eps) * p>
        r = b * r - s * clip(h, -m, m)
        m = max(b * m, |h| + eps);  v = b**2 * v + h**2
        s = (s_init * m / num_betas + max(r, 0)) / (sqrt(v) + eps)
        p_0 + S * (D + u)

    where `S` is `sum(s)`, with the new `s` in the last line, and norms and products are over all
    leaves. `D` is computed from the parameters, which must therefore resolve distances of `s_init`:
    keep them in float32 or wider. The initial parameters are stored in float32 or wider.

    Args:
      base_optimizer: the optimizer, with a learning rate of 1 or a schedule that peaks at 1.
        Optimizers that scale each leaf's step to the leaf's norm, such as LARS, are unsuitable.
      weight_decay: the coefficient of weight decay in the tuners' objective, which thus prefers
        small parameters; that of the optimizer is separate. Default: 0.01.
      eps: added to denominators; positive. Default: 1e-8.
      s_init: the initial scale. Default: 1e-6.
      num_betas: the number of tuners, at least 1. Default: 6.

    Raises:
      ValueError: `num_betas` is less than 1, `eps` is not positive, or `update` was called without
        params.

    Source: Cutkosky, Defazio and Mehta, "Mechanic: A Learning Rate Tuner", arXiv:2306.00144.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return jnp.sum((p - 3.0) ** 2)
      >>> tx, p = gradtx.mechanize(gradtx.sgd(1.0)), jnp.zeros(2)
      >>> state = tx.init(p)
      >>> for _ in range(200):
      ...     updates, state = tx.update(jax.grad(loss)(p), state, p)
      ...     p = p + updates
      >>> print(jnp.round(p, 2))
      [3. 3.]
    """
    base_optimizer = with_extra_args_support(base_optimizer)
    decays = [1 - 10.0**-i for i in range(1, num_betas + 1)]

    def init(params: Params) -> MechanicState:
        dtype = common_dtype(params)
        zeros = [jnp.zeros(num_betas, dtype) for _ in range(3)]
        return MechanicState(
            base_optimizer.init(params),
            jnp.zeros((), jnp.int32),
            *zeros,
            s=jnp.full(num_betas, s_init, dtype),
            x0=copied_slots(params),
        )

    @compiled_when_concrete
    def tune(
        updates: Updates, moves: Updates, state: MechanicState, params: Params
    ) -> tuple[Updates, MechanicState]:
        trees = {"updates": updates, "params": params, "state.x0": state.x0, "the steps": moves}
        g, p, x0, u = present(updates, **trees)
        given, g, p, u = u, as_slots(g, x0), as_slots(p, x0), as_slots(u, x0)
        dtype, scale = state.s.dtype, jnp.sum(state.s)

        sums = [(x - y) / jnp.asarray(scale + eps, x.dtype) for x, y in zip(p, x0, strict=True)]
        pull = finished(weight_decay * scale * tree.norm(g) / (tree.norm(p) + eps))
        h = tree.vdot(sums, [x + times(pull, y) for x, y in zip(g, p, strict=True)])
        h = h.real.astype(dtype)

        b = jnp.asarray(decays, dtype)
        r = b * state.r - state.s * jnp.clip(h, -state.m, state.m)
        m = jnp.maximum(b * state.m, jnp.abs(h) + eps)
        v = b**2 * state.v + h**2
        wealth = s_init * m / num_betas + jnp.maximum(r, 0)
        s = wealth / (safe_sqrt(v) + eps)
        scale = finished(jnp.sum(s))
        steps = [
            (origin - x) + times(scale, total + step)
            for x, origin, total, step in zip(p, x0, sums, u, strict=True)
        ]
        new = {"r": r, "m": m, "v": v, "s": s.astype(dtype), "count": safe_increment(state.count)}
        return replaced(moves, updates, as_updates(steps, given)), state._replace(**new)

    def update(
        updates: Updates, state: MechanicState, params: Params, **extra: Any
    ) -> tuple[Updates, MechanicState]:
        moves, base = base_optimizer.update(updates, state.base_optimizer_state, params, **extra)
        moves, state = tune(updates, moves, state, params)
        return moves, state._replace(base_optimizer_state=base)

    traits = {"passes_to": (base_optimizer,), "inner": (base_optimizer,)}
    return coupled(MechanicState, init, update, name="mechanize", params=True, traits=traits)
