"""Grokfast: gradients with their slow part amplified."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import DECAY
from gradtx._roles import Count, Slot, Statistic, declared
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import ema, times
from gradtx.engine.rules import Counter, Slots
from gradtx.tree.filling import stacked_zeros
from gradtx.tree.moments import next_count


@declared
class GrokfastEmaState(NamedTuple):
    """The state of `grokfast_ema`.

    Attributes:
      count: the number of steps taken.
      mu: the moving average of gradients.
    """

    count: Count
    mu: Slot


@declared
class GrokfastMaState(NamedTuple):
    """The state of `grokfast_ma`.

    Attributes:
      count: the number of steps taken; before int32 overflows, a multiple of `window` is
        subtracted.
      history: the last `window` gradients; before so many steps, with zeros among them.
    """

    count: Count
    history: Statistic


@functools.partial(piece, ranges={"alpha": DECAY})
def grokfast_ema(alpha: Scalar = 0.98, lamb: Scalar = 2.0) -> GradientTransformation:
    """Adds a multiple of their exponential moving average to gradients.

    `mu = alpha * mu + (1-alpha) * g; g + lamb * mu`, where `mu` starts at the first gradient, as in
    the authors' program. It belongs before an optimizer. The slow part of the gradients, which is
    amplified, is what generalization after overfitting ("grokking") depends on; the authors advise
    more weight decay as well.

    Args:
      alpha: the decay rate of the average, in [0, 1). Default: 0.98.
      lamb: the weight of the average; 0 for none. Default: 2.

    Source: Lee et al., "Grokfast: Accelerated Grokking by Amplifying Slow Gradients",
    arXiv:2405.20233.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.grokfast_ema(alpha=0.5, lamb=2.0)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in (1.0, 3.0):
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates)  # 3 + 2 * (1 + 3) / 2
      [7.]
    """

    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        mu = jnp.where(step == 0, g, ema(g, s.mu, alpha))
        return g + times(lamb, mu), Slots(mu=mu)

    return leafwise(
        GrokfastEmaState, lambda p: Slots(mu=jnp.zeros_like(p)), update, name="grokfast_ema"
    )


@piece
def grokfast_ma(window: int = 100, lamb: Scalar = 5.0) -> GradientTransformation:
    """Adds a multiple of the mean of the last gradients to gradients.

    `g + lamb * mean(history)` of the last `window` gradients, this one included; the first
    `window - 1` gradients are not changed. It belongs before an optimizer, and keeps `window`
    gradients in memory; `grokfast_ema` needs one. `store_as(..., history=jnp.bfloat16)` halves
    that.

    Args:
      window: the number of gradients in the mean, at least 1. Default: 100.
      lamb: the weight of the mean; 0 for none. Default: 5.

    Source: Lee et al., "Grokfast: Accelerated Grokking by Amplifying Slow Gradients",
    arXiv:2405.20233.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.grokfast_ma(window=2, lamb=2.0)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in (1.0, 3.0):
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates)
      [1.]
      [7.]
    """

    def init(p: Array) -> Slots:
        return Slots(history=stacked_zeros(p, window))

    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        history = lax.dynamic_update_index_in_dim(s.history, g, step % window, 0)
        filtered = g + times(lamb, jnp.mean(history, 0))
        return jnp.where(step >= window - 1, filtered, g), Slots(history=history)

    counter = Counter(advance=functools.partial(next_count, period=window))
    return leafwise(GrokfastMaState, init, update, counter=counter, name="grokfast_ma")
