"""FOCUS."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import NOT_NEGATIVE
from gradtx._roles import Count, Slot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import ema, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight, step_number


@declared_as("focus")
class FocusState(NamedTuple):
    """The state of `focus`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      mean: moving average of parameters, with bias correction.
    """

    count: Count
    mu: Slot
    mean: Slot


@optimizer(
    "Liu et al., 'FOCUS: First Order Concentrated Updating Scheme', arXiv:2501.12243",
    family="sign",
    probe={"learning_rate": 0.02},
    usual_rate=1e-3,
    ranges={"gamma": NOT_NEGATIVE},
)
def focus(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    gamma: Scalar = 0.1,
    weight_decay: Scalar = 0.0,
) -> GradientTransformation:
    """FOCUS: the sign of momentum, with an attraction to the average of the parameters.

    `mu = b1*mu + (1-b1)*g; mean` is the moving average of `p` with the decay rate `b2` and bias
    correction; `p - learning_rate * (sign(mu) + gamma * sign(p - mean) + weight_decay*mean)`. The
    attraction holds the parameters near the bottom of a narrow valley, where noise would else drive
    them up its sides. It is Signum if `gamma` is 0, and has one slot more.

    Args:
      learning_rate: a number, a scalar array or a schedule; that of Lion or Signum.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of parameters. Default: 0.999.
      gamma: the strength of the attraction, below 1 so that the gradient decides. Default: 0.1.
      weight_decay: the coefficient of the decay, which is that of the average; the learning rate
        multiplies it. Default: 0.

    Raises:
      ValueError: `update` was called without params.

    Source: Liu et al., "FOCUS: First Order Concentrated Updating Scheme", arXiv:2501.12243.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.focus(0.1, gamma=0.5), jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state, params)
      ...     params = params + updates
      >>> print(updates)  # the second is held back
      [-0.05]
    """

    def per_step(step: Scalar) -> dict[str, Array]:
        weight = (1 - b2) / gathered_weight(b2, step_number(step))
        return {"weight": jnp.where(step == 0, 1, weight)}

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), mean=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        # The average of equal numbers is exactly that number, so that the sign is 0 there.
        mean = lax.add(s.mean, times(s.weight, lax.sub(p, s.mean)))
        pull = times(gamma, jnp.sign(lax.sub(p, mean)))
        u = jnp.sign(mu) + pull + times(weight_decay, mean)
        return u, Slots(mu=mu, mean=mean)

    return chain(
        leafwise(FocusState, init, update, params=True, per_step=per_step),
        scale_by_learning_rate(learning_rate),
    )
