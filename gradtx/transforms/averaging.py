"""Averaging updates over steps."""

from collections.abc import Mapping
from typing import NamedTuple

from jax.typing import DTypeLike

from gradtx import numerics
from gradtx._roles import Count, Slot, declared
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.rules import Slots
from gradtx.transforms.storing import store_as
from gradtx.tree.filling import zeros_like


@declared
class EmaState(NamedTuple):
    """The state of `ema`.

    Attributes:
      count: the number of steps taken.
      ema: the average, whose weights sum to `1 - decay**count`.
    """

    count: Count
    ema: Slot


@piece
def ema(
    decay: Scalar, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Replaces updates by their exponential moving average.

    `m = decay * m + (1 - decay) * g`, where `m` starts at zero. The result is `m / (1 - decay**t)`,
    with `t` the number of updates so far, or `m` itself without bias correction.

    Args:
      decay: decay rate of the average, in [0, 1).
      debias: whether to correct the bias: to divide by the sum of the weights, so that the average
        of equal updates is that update from the first step on. Default: True.
      accumulator_dtype: the dtype in which `m` is stored. Default: the parameters' dtype, and
        float32 for half precision.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, section 3.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.ema(0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [1.0, 4.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates, state.ema)
      [3.] [2.25]
    """

    def init(p: Array) -> Slots:
        return Slots(ema=zeros_like(p))

    def weight(step: Array) -> Mapping[str, Array]:
        return (
            {"weight": numerics.gathered_weight(decay, numerics.step_number(step))}
            if debias
            else {}
        )

    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        m = numerics.ema(g, s.ema, decay)
        return (numerics.over(m, s.weight) if debias else m), Slots(ema=m)

    return store_as(
        leafwise(EmaState, init, update, per_step=weight, name="ema"), ema=accumulator_dtype
    )
