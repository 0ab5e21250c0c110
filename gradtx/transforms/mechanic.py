"""Mechanic: a tuner that learns the scale of another optimizer's steps."""

import functools
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from gradtx import tree
from gradtx.engine.base import (
    GradientTransformation,
    Params,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import common_dtype, coupled, present, replaced
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import finished, safe_increment, safe_sqrt, times
from gradtx.engine.roles import Count, Hyperparameter, Inner, Shared, Slot, Told, declared
from gradtx.transforms.slots import as_slots, as_updates, copied_slots


@declared
class MechanicState(NamedTuple):
    """The state of `mechanize`.

    Attributes:
      base_optimizer_state: the state of the optimizer whose steps are scaled.
      count: the number of steps taken.
      r: what each tuner has won, `[num_betas]`.
      m: the largest change of the loss that each has seen, `[num_betas]`.
      v: the sum of squared changes, `[num_betas]`.
      s: the scale of each; the steps are scaled by their sum. `[num_betas]`.
      x0: the parameters at the start.
    """

    base_optimizer_state: Inner
    count: Count
    r: Shared
    m: Shared
    v: Shared
    s: Annotated[Hyperparameter, Told("mechanic_scales")]
    x0: Slot


@functools.partial(piece, constants=("s_init", "eps", "weight_decay"))
def mechanize(
    base_optimizer: Any,
    weight_decay: Any = 1e-2,
    eps: Any = 1e-8,
    s_init: Any = 1e-6,
    num_betas: int = 6,
) -> GradientTransformation:
    """Learns the scale of an optimizer's steps, and with it the learning rate.

    The parameters are the start and a scaled sum of the optimizer's steps `u`,
    `p = p_0 + S * D` with `D = sum(u)`. Several tuners, each with a decay `b` of 0.9, 0.99, 0.999
    and so on, bet on how the loss changes with the scale, and `S` is the sum of theirs:

        D = (p - p_0) / (S + eps)
        h = <D, g + weight_decay * S * norm(g) / (norm(p) + eps) * p>
        r = b * r - s * clip(h, -m, m)
        m = max(b * m, |h| + eps);  v = b**2 * v + h**2
        s = (s_init * m / num_betas + max(r, 0)) / (sqrt(v) + eps)
        p_0 + S * (D + u)

    where `S` is `sum(s)`, in the last line the new one, and norms and products are over all leaves.
    `D` is read off the parameters, so these need the digits to show a distance of `s_init`: keep
    them in float32 or wider. The start is stored in float32 or wider.

    Args:
      base_optimizer: the optimizer; best with a learning rate of 1, or a schedule that peaks at 1.
        Optimizers whose steps do not shrink with the gradient's, such as LARS, do not suit it.
      weight_decay: how strongly the tuners are drawn to small parameters; this is not the decay of
        the optimizer. Default: 0.01.
      eps: keeps denominators from 0; positive. Default: 1e-8.
      s_init: the first scale. Default: 1e-6.
      num_betas: how many tuners there are; a whole number from 1. Default: 6.

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
    if num_betas < 1:
        raise ValueError(f"mechanize: num_betas is {num_betas!r}, and must be at least 1")
    if isinstance(eps, (int, float)) and eps <= 0:
        raise ValueError(f"mechanize: eps is {eps!r}, and must be positive")
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

    return coupled(MechanicState, init, update, name="mechanize", params=True)
