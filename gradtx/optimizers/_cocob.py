"""COCOB: every parameter bets on the sign of its next gradient."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._roles import Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import is_never_zero, value_of
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like

COCOB = (
    "Orabona and Tommasi, 'Training Deep Networks without Learning Rates Through Coin Betting', "
    "arXiv:1705.07795"
)


@declared
class COCOBState(NamedTuple):
    """The state of `scale_by_cocob`.

    Attributes:
      init_particles: the parameters at the start.
      cumulative_gradients: the sum of negative gradients.
      scale: the largest magnitude of a gradient so far.
      subgradients: the sum of magnitudes.
      reward: the sum won by the bets, at least 0.
    """

    init_particles: Slot
    cumulative_gradients: Slot
    scale: UnsignedSlot
    subgradients: UnsignedSlot
    reward: UnsignedSlot


@piece
def scale_by_cocob(alpha: Scalar = 100.0, eps: Scalar = 1e-8) -> GradientTransformation:
    """Computes steps from negative gradients by coin betting, for each coordinate.

    With the incoming negative gradient `c`, `L = max(L, |c|); G = G + |c|;
    R = max(R + (p - p_0) * c, 0); T = T + c; p_0 + T / (L * max(G + L, alpha * L)) * (L + R) - p`.
    The step leads to the point that the bets determine, wherever the parameters are, and depends on
    ratios of gradients only. A complex number is one coordinate: its bet is complex, and
    `(p - p_0) * c` is the real inner product. The start `p_0` is stored in float32 or wider.

    Args:
      alpha: the first bets are divided by `alpha` times the largest magnitude of a gradient.
        Default: 100.
      eps: the initial `L`. Default: 1e-8; the paper's is 0.

    Raises:
      ValueError: `update` was called without params.

    Source: Orabona and Tommasi, "Training Deep Networks without Learning Rates Through Coin
    Betting", arXiv:1705.07795, Algorithm 2 (COCOB-Backprop).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_cocob()
      >>> params = jnp.array([1.0, 2.0])
      >>> print(tx.update(jnp.array([-3.0, 0.2]), tx.init(params), params)[0])
      [-0.01  0.01]
    """

    def init(p: Array) -> Slots:
        return Slots(
            init_particles=p,
            cumulative_gradients=jnp.zeros_like(p),
            scale=real_full_like(p, eps),
            subgradients=real_full_like(p, 0),
            reward=real_full_like(p, 0),
        )

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        size, start = jnp.abs(g), s.init_particles
        largest = jnp.maximum(s.scale, size)
        total = s.subgradients + size
        won = jnp.real(jnp.conj(p - start) * g)
        reward = jnp.maximum(s.reward + won, 0)
        gathered = s.cumulative_gradients + g
        # In units of the largest magnitude, whose square may overflow or underflow; it starts at
        # `eps`.
        unit = largest
        if not is_never_zero(eps, largest.dtype):
            unit = jnp.where(largest > 0, largest, 1)
        fraction = gathered / unit / jnp.maximum(total / unit + 1, value_of(alpha))
        bet = fraction * (1 + reward / unit)
        return (start - p) + bet, Slots(
            init_particles=start,
            cumulative_gradients=gathered,
            scale=largest,
            subgradients=total,
            reward=reward,
        )

    return leafwise(COCOBState, init, update, params=True)


@optimizer(
    COCOB,
    family="learning-rate-free",
    probe={"learning_rate": 1.0, "alpha": 10.0},
    scale_free=True,
)
def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: Scalar = 100.0,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """COCOB: coin betting for each parameter, without a learning rate.

    The step of `scale_by_cocob` for the negative gradient
    `-learning_rate * (g + weight_decay * p)`.

    Args:
      learning_rate: the weight of this step's gradient relative to the others; a number, a scalar
        array or a schedule. A constant has no effect, as only ratios of gradients matter; under a
        decreasing schedule the parameters come to rest. Default: 1.
      alpha: the first bets are divided by `alpha` times the largest magnitude of a gradient.
        Default: 100.
      eps: the initial value of the largest magnitude. Default: 1e-8; the paper's is 0.
      weight_decay: the coefficient of L2 regularization, a number or a schedule:
        `weight_decay * p` is added to the gradient. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Orabona and Tommasi, "Training Deep Networks without Learning Rates Through Coin
    Betting", arXiv:1705.07795.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.cocob()
      >>> params = jnp.array([1.0, 2.0])
      >>> print(tx.update(jnp.array([3.0, -0.2]), tx.init(params), params)[0])
      [-0.01  0.01]
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
        scale_by_cocob(alpha, eps),
    )
