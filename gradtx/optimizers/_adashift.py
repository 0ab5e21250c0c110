"""AdaShift."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._roles import Count, Statistic, UnsignedStatistic, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like, stacked_zeros
from gradtx.tree.moments import gathered_weight, step_number


@declared_as("adashift")
class AdaShiftState(NamedTuple):
    """The state of `adashift`.

    Attributes:
      count: the number of steps taken.
      last: for each leaf the last gradients, the oldest first, along a leading axis.
      nu: for each leaf the moving average of the largest squared gradient, from `keep` steps ago.
    """

    count: Count
    last: Statistic
    nu: UnsignedStatistic


@optimizer(
    "Zhou et al., 'AdaShift: Decorrelation and Convergence of Adaptive Learning Rate Methods', "
    "arXiv:1810.00143",
    family="Adam",
    acts_on="leaf",
    probe={"learning_rate": 0.05, "keep": 2},
    usual_rate=0.01,
)
def adashift(
    learning_rate: ScalarOrSchedule,
    keep: int = 10,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-10,
) -> GradientTransformation:
    """AdaShift: Adam with a second moment from gradients that the momentum no longer contains.

    With `g[i]` the gradient `i` steps ago: `m = sum(b1**i * g[i]) / sum(b1**i)` over the last
    `keep` gradients; `nu = b2*nu + (1-b2) * max(|g[keep]|^2)`, one number for each leaf;
    `p - learning_rate * m / (sqrt(nu / (1-b2**(t-keep))) + eps)`, where `t` is 1 at the first step.
    Gradient and step size are independent, so that it converges where Adam need not. There are no
    steps while `nu` is 0, and so none until `keep` gradients are stored, which takes `keep` times
    the memory of a moment.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors use 0.01 for
        networks, as the largest square of a leaf makes steps small.
      keep: the number of gradients that are stored, a Python integer. Default: 10.
      b1: the decay rate of the weights of the last gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-10.

    Source: Zhou et al., "AdaShift: Decorrelation and Convergence of Adaptive Learning Rate
    Methods", arXiv:1810.00143.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adashift(0.1, keep=1, b2=0.0)
      >>> state = tx.init(jnp.zeros(2))
      >>> for g in [4.0, 2.0]:
      ...     updates, state = tx.update(jnp.array([g, 1.0]), state)
      >>> print(updates)  # divided by 4
      [-0.05  -0.025]
    """

    def init(p: Array) -> Slots:
        last = stacked_zeros(p, keep)
        return Slots(last=last, nu=real_full_like(jnp.zeros((), p.dtype), 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        oldest, full = s.last[0], step >= keep
        last = jnp.concatenate([s.last[1:], g[None]])
        square = jnp.max(abs_sq(oldest), initial=0)
        nu = jnp.where(full, ema(square, s.nu, b2), s.nu)
        # Horner's rule, the oldest first, so that no power of `b1` is needed.
        total, weight = jnp.zeros_like(g), 0.0
        for i in range(keep):
            total, weight = times(b1, total) + last[i], b1 * weight + 1
        nu_hat = jnp.broadcast_to(over(nu, s.nu_weight), g.shape)
        u = ratio(over(total, weight), nu_hat, eps)
        return jnp.where(nu > 0, u, 0), Slots(last=last, nu=nu)

    return chain(
        leafwise(AdaShiftState, init, update, per_step=_weight(b2, keep)),
        scale_by_learning_rate(learning_rate),
    )


def _weight(b2: Scalar, keep: int) -> Callable[[Scalar], dict[str, Array]]:
    def per_step(step: Scalar) -> dict[str, Array]:
        return {"nu_weight": gathered_weight(b2, jnp.maximum(step_number(step) - keep, 1))}

    return per_step
