"""ACProp: AdaBelief whose denominator excludes this step's gradient."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import FRACTION
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio
from gradtx.engine.rules import Slots
from gradtx.optimizers._adabelief import ScaleByBeliefState
from gradtx.optimizers._adam import zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import gathered_weight


@functools.partial(piece, ranges={"b1": FRACTION})
def scale_by_acprop(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-16, eps_root: Scalar = 1e-16
) -> GradientTransformation:
    """Divides gradients by the root mean square deviation of earlier gradients from their average.

    `g / (sqrt(nu / (1-b2**(t-1))) + eps)` with the `nu` of the last step; then
    `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2)*|g-mu|^2 + eps_root`, where `t` is 1 at the first
    step. The first step, before which there is no `nu`, is `g / (1 + eps)`; in the paper it is
    `g / sqrt(eps)`, a jump.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-16.
      eps_root: added to `nu` at every step, where it accumulates to at most `eps_root / (1-b2)`.
        Default: 1e-16.

    Source: Zhuang et al., "Momentum Centering and Asynchronous Update for Adaptive Gradient
    Methods", arXiv:2110.05454, Algorithm 2, with the bias correction of AdaBelief.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_acprop(b1=0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [4.0, 3.0]:  # the first is 2 away from the average that it makes
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates)
      [4.]
      [1.5]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        known = jnp.where(step == 0, 1, over(s.nu, s.nu_weight))
        mu = ema(g, s.mu, b1)
        nu = plus(ema(abs_sq(lax.sub(g, mu)), s.nu, b2), eps_root)
        return ratio(g, known, eps), Slots(mu=mu, nu=nu)

    return leafwise(ScaleByBeliefState, zero_moments, update, per_step=_weight(b2))


def _weight(b2: Scalar) -> Callable[[Scalar], dict[str, Array]]:
    # The weight of the squares before this step; at the first step there are none, and it is not
    # used.
    return lambda step: {"nu_weight": gathered_weight(b2, jnp.maximum(step, 1))}


@optimizer(
    "Zhuang et al., 'Momentum Centering and Asynchronous Update for Adaptive Gradient Methods', "
    "arXiv:2110.05454",
    family="Adam",
    probe={"learning_rate": 0.01},
    usual_rate=0.001,
    ranges={"b1": FRACTION},
)
def acprop(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """ACProp: AdaBelief without momentum, divided by the last step's second moment.

    `p - learning_rate * (g / (sqrt(nu_hat) + eps) + weight_decay * p)`, see `scale_by_acprop`. A
    gradient that is far larger than the earlier ones makes a step that is larger by the same
    factor.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-16.
      eps_root: added to the average of squares at every step. Default: 1e-16.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Zhuang et al., "Momentum Centering and Asynchronous Update for Adaptive Gradient
    Methods", arXiv:2110.05454.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.acprop(1e-3)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([4.0]), state, params)
      >>> print(updates)
      [-0.00111111]
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
