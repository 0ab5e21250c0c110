"""MADGRAD: dual averaging with momentum, and the cube root of AdaGrad's sum."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import DECAY
from gradtx._roles import KEPT, Count, Rate, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, plus, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import step_number


@declared
class MadgradState(NamedTuple):
    """The state of `scale_by_madgrad`.

    Attributes:
      count: the number of steps taken.
      grad_sum_sq: weighted sum of squared gradients, real.
      s: weighted sum of gradients.
      x0: the parameters at the start.
      learning_rate: the rate that the last step used; before any step, that of the first step.
    """

    count: Count
    grad_sum_sq: UnsignedSlot
    s: Slot
    x0: Slot
    learning_rate: Rate = KEPT


@functools.partial(piece, ranges={"momentum": DECAY})
def scale_by_madgrad(
    learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9, eps: Scalar = 1e-6
) -> GradientTransformation:
    """Computes steps towards the point that the weighted sum of all gradients determines.

    With the weight `w = learning_rate * sqrt(t)`, where `t` is 1 at the first step,
    `s = s + w*g; grad_sum_sq = grad_sum_sq + w*|g|^2; z = x0 - s / (cbrt(grad_sum_sq) + eps);
    (1 - momentum) * (z - p)`. The start `x0` is stored in float32 or wider. The authors' code adds
    `eps` to the learning rate as well, so that parameters move even at a rate of 0; the paper does
    not.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      momentum: the fraction of the distance to `z` that remains after a step. Default: 0.9.
      eps: added to the cube root. Default: 1e-6.

    Raises:
      ValueError: `update` was called without params.

    Source: Defazio and Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual
    Averaged Gradient Method for Stochastic Optimization", arXiv:2101.11075, Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_madgrad(0.5, momentum=0.5, eps=0.0)
      >>> params = jnp.array([3.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])  # z = 3 - 2 / cbrt(8)
      [-0.5]
    """

    def init(p: Array) -> Slots:
        return Slots(grad_sum_sq=real_full_like(p, 0), s=jnp.zeros_like(p), x0=p)

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        weight = s.learning_rate * s.root_t
        total = s.s + times(weight, g)
        square = s.grad_sum_sq + times(weight, abs_sq(g))
        # The cube root of 0 has an infinite derivative; that of the least normal number is 1e-13.
        size = plus(jnp.cbrt(plus(square, jnp.finfo(square.dtype).tiny)), eps)
        step_to_z = (s.x0 - p) - total / size
        return times(1 - momentum, step_to_z), Slots(grad_sum_sq=square, s=total, x0=s.x0)

    def per_step(step: Scalar) -> dict[str, Array]:
        return {"root_t": jnp.sqrt(step_number(step))}

    return leafwise(
        MadgradState,
        init,
        update,
        params=True,
        rate=learning_rate,
        per_step=per_step,
    )


@optimizer(
    "Defazio and Jelassi, 'Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged "
    "Gradient Method for Stochastic Optimization', arXiv:2101.11075",
    family="AdaGrad",
    probe={"learning_rate": 0.3},
    usual_rate=0.001,
    ranges={"momentum": DECAY},
)
def madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: Scalar = 1e-6,
) -> GradientTransformation:
    """MADGRAD: dual averaging of all gradients, divided by the cube root of their summed squares.

    `p + (1 - momentum) * (z - p)`, with `z` from gradients `g + weight_decay * p`, see
    `scale_by_madgrad`. The learning rate is part of the sums: it weighs this step's gradient
    against those before, and is not comparable with that of SGD or Adam. A weight decay that suits
    SGD or Adam is too large here.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      momentum: the fraction of the distance to `z` that remains after a step. Default: 0.9.
      weight_decay: the coefficient of L2 regularization, a number or a schedule:
        `weight_decay * p` is added to the gradient. Default: 0.
      eps: added to the cube root. Default: 1e-6.

    Raises:
      ValueError: `update` was called without params.

    Source: Defazio and Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual
    Averaged Gradient Method for Stochastic Optimization", arXiv:2101.11075.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.madgrad(0.5, momentum=0.5, eps=0.0)
      >>> params = jnp.array([3.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.5]
    """
    return chain(
        add_decayed_weights(weight_decay),
        scale_by_madgrad(learning_rate, momentum, eps),
    )
