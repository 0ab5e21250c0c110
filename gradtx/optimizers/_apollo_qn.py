"""Apollo: a quasi-Newton method with a diagonal Hessian."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import POSITIVE
from gradtx._roles import Count, Slot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import times, value_of
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import norms, safe_sqrt


@declared_as("apollo_qn")
class ApolloQNState(NamedTuple):
    """The state of `apollo_qn`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients, after bias correction.
      curvature: the estimate of the Hessian's diagonal.
      direction: the last step, before the learning rate.
    """

    count: Count
    mu: Slot
    curvature: Slot
    direction: Slot


@optimizer(
    "Ma, 'Apollo: An Adaptive Parameter-wise Diagonal Quasi-Newton Method for Nonconvex Stochastic "
    "Optimization', arXiv:2009.13586",
    family="curvature",
    acts_on="leaf",
    probe={"learning_rate": 0.1},
    usual_rate=1.0,
    ranges={"rebound": POSITIVE},
)
def apollo_qn(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    eps: Scalar = 1e-4,
    rebound: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Apollo, the quasi-Newton method: momentum divided by a diagonal that fits changes of it.

    With the last direction `d`, which is 0 at first, `mu_last = mu;
    mu = mu + (1-b1)/(1-b1**t) * (g - mu)`, where `t` is 1 at the first step; `d = d / (norm4(d) +
    eps); B = B - (sum((mu - mu_last)*d)/n4 + sum(B*d^2)) * d^2` for each leaf, where `n4` is that
    `norm4(d) + eps`, and `norm4` the fourth root of the sum of fourth powers; then
    `d = mu / max(|B|, rebound); p - learning_rate * (d + weight_decay*p)`. It has the memory of
    Adam and one more slot, without estimates of a Hessian. It is not the memory-saving `apollo`.

    The first directions are those of SGD with the learning rate `learning_rate / rebound`, which
    is large: the authors always warm the learning rate up, over some hundreds of steps. In their
    program `d` has the weight decay as well.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 1, after a warm-up.
      b1: the decay rate of the average of gradients. Default: 0.9.
      eps: added to the norm of directions. Default: 1e-4.
      rebound: the least divisor. Default: 1. If it is multiplied by a constant together with the
        learning rate, the steps are the same.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      TypeError: parameters are complex.
      ValueError: `update` was called without params.

    Source: Ma, "Apollo: An Adaptive Parameter-wise Diagonal Quasi-Newton Method for Nonconvex
    Stochastic Optimization", arXiv:2009.13586.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.apollo_qn(0.1)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.4]
    """

    def init(p: Array) -> Slots:
        zero = jnp.zeros_like(p)
        return Slots(mu=zero, curvature=zero, direction=zero)

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        change = times(s.weight, g - s.mu)
        mu = s.mu + change
        largest = jnp.max(jnp.abs(s.direction), initial=0)
        unit = s.direction / jnp.where(largest > 0, largest, 1)  # whose powers do not overflow
        size = largest * safe_sqrt(norms(unit * unit)[0]) + eps
        size = jnp.where(size > 0, size, 1)
        d = s.direction / size
        square = d * d
        misfit = jnp.sum(change * d) / size + jnp.sum(s.curvature * square)
        curvature = s.curvature - misfit * square
        direction = mu / jnp.maximum(jnp.abs(curvature), value_of(rebound))
        return direction, Slots(mu=mu, curvature=curvature, direction=direction)

    return chain(
        leafwise(ApolloQNState, init, update, per_step=_weight(b1), real_only=True),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _weight(b1: Scalar) -> Callable[[Scalar], dict[str, Scalar]]:
    def per_step(step: Scalar) -> dict[str, Scalar]:
        return {"weight": (1 - b1) / gathered_weight(b1, step_number(step))}

    return per_step
