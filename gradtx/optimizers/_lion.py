"""Lion."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._roles import Count, Slot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import ema, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.storing import store_as
from gradtx.tree.filling import zeros_like


@declared
class ScaleByLionState(NamedTuple):
    """The state of `scale_by_lion`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
    """

    count: Count
    mu: Slot


@functools.partial(piece, ranges={"mode": None})
def scale_by_lion(
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Scalar = 1.0,
) -> GradientTransformation:
    """Replaces gradients by the sign of a mix of momentum and gradient.

    `c = b1*mu + (1-b1)*g; mu = b2*mu + (1-b2)*g; sign(c)`. Two other modes bound `c` by 1 without
    the sign's jump at 0, so that small `c` make small steps.

    Args:
      b1: the weight of the momentum in the mix. Default: 0.9.
      b2: the decay rate of the average of gradients. Default: 0.99.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      mode: `"hard"` for `sign(c)`, `"smooth"` for `tanh(smooth_beta * c)`, `"refined"` for `c`
        clipped to [-1, 1]. Complex `c` keep their angle in all of them, and their magnitude becomes
        1, `tanh(smooth_beta * |c|)` or `min(|c|, 1)`. Default: hard.
      smooth_beta: the slope at 0 in the smooth mode; the other modes ignore it. Default: 1.

    Raises:
      ValueError: `mode` is unknown; raised at the first update.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675. The sign
    is the gradient of `|c|`; the other modes use the gradients of smoother functions: Chen et al.,
    "Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts", arXiv:2310.05898.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_lion()
      >>> print(tx.update(jnp.array([4.0, -0.1]), tx.init(jnp.zeros(2)))[0])
      [ 1. -1.]
    """
    bounds: dict[str, Callable[[Array], Array]] = {
        "hard": jnp.sign,
        "smooth": lambda c: _tanh(times(smooth_beta, c)),
        "refined": _cut,
    }

    def bound(c: Array) -> Array:
        if mode not in bounds:  # raised at the first update, as in optax
            raise ValueError(f"mode must be one of {', '.join(map(repr, bounds))}, got {mode!r}")
        return bounds[mode](c)

    def init(p: Array) -> Slots:
        return Slots(mu=zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        return bound(ema(g, s.mu, b1)), Slots(mu=ema(g, s.mu, b2))

    return store_as(leafwise(ScaleByLionState, init, update), mu=mu_dtype)


def _tanh(c: Array) -> Array:
    # The complex tanh has poles, and does not commute with a change of phase.
    return jnp.sign(c) * jnp.tanh(jnp.abs(c)) if jnp.iscomplexobj(c) else jnp.tanh(c)


def _cut(c: Array) -> Array:
    return c / jnp.maximum(jnp.abs(c), 1) if jnp.iscomplexobj(c) else jnp.clip(c, -1, 1)


@optimizer(
    "Chen et al., 'Symbolic Discovery of Optimization Algorithms', arXiv:2302.06675",
    family="sign",
    probe={"learning_rate": 0.02},
    usual_rate=1e-4,
)
def lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Lion: steps of equal size along the sign of interpolated momentum.

    `p - learning_rate * (sign(b1*mu + (1-b1)*g) + weight_decay * p)`, see `scale_by_lion`. The
    paper's advice is a learning rate 3 to 10 times smaller than AdamW's, and a weight decay larger
    by the same factor.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the weight of the momentum in the mix. Default: 0.9.
      b2: the decay rate of the average of gradients. Default: 0.99.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 1e-3.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.lion(1e-4)
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.0001002]
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
