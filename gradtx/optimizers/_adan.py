"""Adan."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._roles import Count, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.masks import Mask
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio, times
from gradtx.engine.rules import Counter, Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import AddDecayedWeightsState, add_decayed_weights
from gradtx.transforms.masking import narrow
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import gathered_weight, step_number


@declared
class ScaleByAdanState(NamedTuple):
    """The state of `scale_by_adan`.

    Attributes:
      m: moving average of gradients.
      v: moving average of the differences between consecutive gradients.
      n: moving average of the squared look-ahead gradients `g + b2*d`, real.
      g: the last gradient.
      t: the number of steps taken.
    """

    m: Slot
    v: Slot
    n: UnsignedSlot
    g: Slot
    t: Count


@piece
def scale_by_adan(
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
) -> GradientTransformation:
    """Scales by Adan's rule: Adam with Nesterov momentum from differences of gradients.

    With `d = g - g_last`, and 0 at the first step: `m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*d;
    n = b3*n + (1-b3)*|g + b2*d|^2; (m_hat + b2 * v_hat) / (sqrt(n_hat + eps_root) + eps)`, where
    `m_hat = m / (1-b1**t)`, likewise `v_hat` and `n_hat`, and `t` is 1 at the first step. The decay
    rates are one minus the paper's betas. The bias corrections `1 - b**t` are those of the authors'
    code.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.98.
      b2: the decay rate of the average of differences, and their weight in the look-ahead. Default:
        0.92.
      b3: the decay rate of the average of squares. Default: 0.99.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.

    Source: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
    Models", arXiv:2208.06677, Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_adan(b1=0.5, b2=0.5, b3=0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [2.0, 4.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates)  # (10/3 + 1/2 * 4/3) / sqrt(18)
      [0.942809]
    """

    def init(p: Array) -> Slots:
        zero = jnp.zeros_like(p)
        return Slots(m=zero, v=zero, n=real_full_like(p, 0), g=zero)

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        d = jnp.where(step == 0, 0, lax.sub(g, s.g))
        m, v = ema(g, s.m, b1), ema(d, s.v, b2)
        n = ema(abs_sq(lax.add(g, times(b2, d))), s.n, b3)
        ahead = lax.add(over(m, s.m_weight), times(b2, over(v, s.v_weight)))
        u = ratio(ahead, plus(over(n, s.n_weight), eps_root), eps)
        return u, Slots(m=m, v=v, n=n, g=g)

    return leafwise(
        ScaleByAdanState, init, update, per_step=_weights(b1, b2, b3), counter=Counter("t")
    )


def _weights(b1: Scalar, b2: Scalar, b3: Scalar) -> Callable[[Scalar], dict[str, Array]]:
    def per_step(step: Scalar) -> dict[str, Array]:
        named = {"m_weight": b1, "v_weight": b2, "n_weight": b3}
        t = step_number(step)
        return {name: gathered_weight(decay, t) for name, decay in named.items()}

    return per_step


@optimizer(
    "Xie et al., 'Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models', "
    "arXiv:2208.06677",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def adan(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    proximal: bool = False,
) -> GradientTransformation:
    """Adan: Adam with Nesterov momentum from differences of gradients.

    `p - learning_rate * ((m_hat + b2 * v_hat) / (sqrt(n_hat + eps_root) + eps) + weight_decay*p)`,
    see `scale_by_adan`. With `proximal`, the decay is that of the paper:
    `(p - learning_rate * (m_hat + b2 * v_hat) / (sqrt(n_hat + eps_root) + eps))
    / (1 + learning_rate * weight_decay)`. The paper has no `eps_root`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.98.
      b2: the decay rate of the average of differences, and their weight in the look-ahead. Default:
        0.92.
      b3: the decay rate of the average of squares. Default: 0.99.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      proximal: whether parameters are divided by `1 + learning_rate * weight_decay` after the step,
        as in the paper and the authors' program. Default: False, as in optax.

    Raises:
      ValueError: `update` was called without params.

    Source: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
    Models", arXiv:2208.06677.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adan(1e-3)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.001]
    """
    descent = chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if not proximal:
        return descent
    shrink = _shrink(learning_rate, weight_decay)
    return chain(descent, shrink if mask is None else narrow(shrink, Mask(mask, name="adan")))


@piece
def _shrink(
    learning_rate: ScalarOrSchedule, weight_decay: ScalarOrSchedule
) -> GradientTransformation:
    """Divides steps with decoupled decay, so that the decay is that of the point that is reached.

    `(p - r*u) / (1 + r*wd) = p - r * (u + wd*p) / (1 + r*wd)`.
    """
    return leafwise(
        AddDecayedWeightsState,
        None,
        _divide,
        rate=learning_rate,
        scalars={"weight_decay": weight_decay},
        name="adan",
    )


def _divide(u: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
    return over(u, 1 + s.learning_rate * s.weight_decay), Slots()
