"""Update clipping: smaller steps where gradients exceed their second moment."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx._roles import Count, Inner, UnsignedSlot, declared, declared_as
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Scalar,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, root, value_of
from gradtx.engine.pipeline import wrapped
from gradtx.engine.rules import Slots
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import root_mean_square


@declared_as("stable_rms_clip")
class SecondMomentState(NamedTuple):
    """The second moment of the gradients in the state of `stable_rms_clip`.

    Attributes:
      count: the number of steps taken.
      nu: the moving average of squared gradients, real.
    """

    count: Count
    nu: UnsignedSlot


@declared
class StableRmsClipState(NamedTuple):
    """The state of `stable_rms_clip`.

    Attributes:
      moment: the second moment of the gradients.
      inner_state: the state of the transformation.
    """

    moment: Inner
    inner_state: Inner


@piece
def stable_rms_clip(
    inner: TransformationLike, b2: Scalar = 0.99, eps: Scalar = 1e-8
) -> GradientTransformation:
    """Divides a leaf's updates by the root mean square of `g / sqrt(v)` where that exceeds 1.

    `nu = b2*nu + (1-b2)*|g|^2; v = nu / (1-b2**t);
    inner(g) / max(1, sqrt(mean(|g|^2 / max(v, eps^2))))`, with the mean over one leaf. A gradient
    much larger than its second moment means that the moment is out of date, so that Adam's step
    would be too long. This is the update clipping of Adafactor for any optimizer; around `adamw` it
    is StableAdamW, in which weight decay is scaled as well. The second moment is kept in addition
    to that of `inner`.

    Args:
      inner: the transformation.
      b2: the decay rate of the second moment, usually that of `inner`. Default: 0.99.
      eps: the lower bound of `sqrt(v)`. Default: 1e-8.

    Source: Wortsman et al., "Stable and low-precision training for large-scale vision-language
    models", arXiv:2304.13013, Algorithm 2.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.stable_rms_clip(gradtx.sgd(1.0), b2=0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in (1.0, 7.0):
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates.round(3))  # the second is divided by 7 / sqrt(33)
      [-1.]
      [-5.745]
    """
    inner = with_extra_args_support(inner)

    def slots(p: Array) -> Slots:
        return Slots(nu=real_full_like(p, 0))

    def weight(step: Array) -> dict[str, Array]:
        return {"weight": gathered_weight(b2, step_number(step))}

    def shrink(u: Array, s: Slots, step: Array, g: Array) -> tuple[Array, Slots]:
        nu = ema(abs_sq(g), s.nu, b2)
        least = jnp.maximum(root(over(nu, s.weight)), value_of(eps))
        excess = root_mean_square(g / least)
        return over(u, jnp.where(excess > 1, excess, 1)), Slots(nu=nu)  # also if it is NaN

    clip = leafwise(
        SecondMomentState, slots, shrink, params=True, per_step=weight, name="stable_rms_clip"
    )

    def init(params: Params) -> StableRmsClipState:
        return StableRmsClipState(clip.init(params), inner.init(params))

    def update(
        updates: Updates, state: StableRmsClipState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, StableRmsClipState]:
        new, inner_state = inner.update(updates, state.inner_state, params, **extra)
        new, moment = clip.update(new, state.moment, updates)
        return new, StableRmsClipState(moment, inner_state)

    return wrapped(init, update, inner, name="stable_rms_clip", state=StableRmsClipState)
