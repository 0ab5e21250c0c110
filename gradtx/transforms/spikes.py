"""Clipping of the elements of gradients that exceed those before them: SPAM and Stable-SPAM."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import DECAY
from gradtx._roles import Count, UnsignedSlot, UnsignedStatistic, declared
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, root, times
from gradtx.engine.rules import Slots
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import gathered_weight, step_number


@declared
class SpikeAwareClipState(NamedTuple):
    """The state of `spike_aware_clip`.

    Attributes:
      nu: the moving average of squared clipped gradients, real.
    """

    nu: UnsignedSlot


@declared
class AdaptiveSpikeClipState(NamedTuple):
    """The state of `adaptive_spike_clip`.

    Attributes:
      count: the number of steps taken.
      largest: for each leaf, the moving average of its largest magnitude.
    """

    count: Count
    largest: UnsignedStatistic


@piece
def spike_aware_clip(threshold: Scalar = 5000.0, b2: Scalar = 0.999) -> GradientTransformation:
    """Clips the elements of gradients whose squares exceed a multiple of their second moment.

    `g = sign(g) * min(|g|, sqrt(threshold * nu)); nu = b2*nu + (1-b2)*|g|^2`; where `nu` is 0,
    nothing is clipped. As in the paper, `nu` is that of Adam without bias correction, so that the
    limit is tight in the first steps. SPAM is
    `momentum_reset(chain(spike_aware_clip(), scale_by_adam()))` before the learning rate.

    Args:
      threshold: the largest ratio of the square to the second moment. Default: 5000.
      b2: the decay rate of the second moment, usually that of the optimizer. Default: 0.999.

    Source: Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training",
    arXiv:2501.06842.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.spike_aware_clip(threshold=8.0, b2=0.5)
      >>> state = tx.init(jnp.zeros(2))
      >>> _, state = tx.update(jnp.array([1.0, 1.0]), state)
      >>> print(tx.update(jnp.array([1.0, -100.0]), state)[0])
      [ 1. -2.]
    """

    def init(p: Array) -> Slots:
        return Slots(nu=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        g = without_spikes(g, s.nu, threshold)
        return g, Slots(nu=ema(abs_sq(g), s.nu, b2))

    return leafwise(SpikeAwareClipState, init, update, name="spike_aware_clip")


def without_spikes(g: Array, nu: Array, threshold: Scalar) -> Array:
    """Returns a gradient with smaller elements where its squares exceed a multiple of `nu`.

    Args:
      g: the gradient.
      nu: the second moment; where it is 0, nothing is changed.
      threshold: the multiple.
    """
    limit = root(times(threshold, nu))
    spike = (nu > 0) & (jnp.abs(g) > limit)
    return jnp.where(spike, jnp.sign(g) * limit, g)


@functools.partial(piece, ranges={"decay": DECAY})
def adaptive_spike_clip(decay: Scalar = 0.999) -> GradientTransformation:
    """Scales down the elements of gradients that exceed the average of a leaf's largest magnitude.

    `largest = decay * largest + (1-decay) * max(|g|); limit = largest / (1 - decay**t)`, and
    `g / max(|g|) * limit` for elements with `|g| > limit`, with the maximum over one leaf: AdaClip
    of Stable-SPAM. A leaf that is not finite is returned unchanged, and does not enter the average.
    It belongs before `adaptive_gradient_norm`.

    Args:
      decay: the decay rate of the average, in [0, 1). Default: 0.999.

    Source: Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
    arXiv:2502.17055.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adaptive_spike_clip(decay=0.5)
      >>> state = tx.init(jnp.zeros(2))
      >>> _, state = tx.update(jnp.array([1.0, 1.0]), state)
      >>> print(tx.update(jnp.array([1.0, -4.0]), state)[0])  # the limit is 2.25 / 0.75
      [ 1. -3.]
    """

    def init(p: Array) -> Slots:
        return Slots(largest=real_full_like(jnp.zeros((), p.dtype), 0))

    def weight(step: Array) -> dict[str, Array]:
        return {"weight": gathered_weight(decay, step_number(step))}

    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        size = jnp.abs(g)
        top = jnp.max(size, initial=0)
        finite = jnp.isfinite(top)
        largest = jnp.where(finite, ema(top, s.largest, decay), s.largest)
        limit = over(largest, s.weight)
        scaled = times(limit, over(g, jnp.where(top > 0, top, 1)))
        return jnp.where((size > limit) & finite, scaled, g), Slots(largest=largest)

    return leafwise(
        AdaptiveSpikeClipState, init, update, per_step=weight, name="adaptive_spike_clip"
    )
