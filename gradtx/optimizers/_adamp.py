"""AdamP and SGDP: steps without their part along scale-invariant weights."""

import math

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import DECAY, axes_within
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times, value_of
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, moment_weights, zero_moments
from gradtx.transforms.combining import chain
from gradtx.transforms.momentum import TraceState
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.norms import norms

ADAMP = (
    "Heo et al., 'AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant "
    "Weights', arXiv:2006.08217"
)


def _projected(
    u: Array, g: Array, p: Array, delta: Scalar, eps: Scalar, channel_axis: int
) -> tuple[Array, Array | bool]:
    """Returns a step without its part along scale-invariant weights, and whether they are such.

    They are tried channel by channel first, then the leaf as a whole.
    """
    if p.ndim < 2:
        return u, False
    channels = axes_within(channel_axis, p.ndim, "channel_axis")
    others = tuple(i for i in range(p.ndim) if i not in channels)

    def view(axes: tuple[int, ...]) -> tuple[Array, Array]:
        sizes = (size + eps for size in norms(p, g, axis=axes))
        of_p, of_g = (jnp.where(size > 0, size, 1) for size in sizes)
        unit = p / of_p
        along = jnp.sum(_inner(unit, g / of_g), axes, keepdims=True)
        size = math.prod(p.shape[i] for i in axes)
        invariant = jnp.max(jnp.abs(along), initial=0) < delta / max(size, 1) ** 0.5
        return invariant, u - unit * jnp.sum(_inner(unit, u), axes, keepdims=True)

    by_channel, without_channels = view(others)
    as_whole, without_whole = view(tuple(range(p.ndim)))
    projected = jnp.where(by_channel, without_channels, jnp.where(as_whole, without_whole, u))
    return projected, by_channel | as_whole


def _inner(x: Array, y: Array) -> Array:
    return jnp.real(jnp.conj(x) * y) if jnp.iscomplexobj(x) or jnp.iscomplexobj(y) else x * y


def _decayed(
    u: Array, p: Array, invariant: Array | bool, weight_decay: Scalar, wd_ratio: Scalar
) -> Array:
    """Returns a step with weight decay, of which scale-invariant weights have a part only."""
    factor = jnp.where(invariant, weight_decay * wd_ratio, value_of(weight_decay))
    return lax.add(u, times(factor, p).astype(u.dtype))


@optimizer(ADAMP, family="Adam", acts_on="leaf", probe={"learning_rate": 0.05}, usual_rate=0.001)
def adamp(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    delta: Scalar = 0.1,
    wd_ratio: Scalar = 0.1,
    channel_axis: int = -1,
) -> GradientTransformation:
    """AdamP: AdamW without the part of steps that only lengthens scale-invariant weights.

    `u` is the direction of `adam`. If `max(|cos(p, g)|) < delta / sqrt(n)`, with one cosine for
    each channel of `n` elements, `u = u - p * <p, u> / |p|^2` for each channel, and `weight_decay`
    is multiplied by `wd_ratio`; otherwise the same is tried with the whole leaf as one channel;
    `p - learning_rate * (u + weight_decay * p)`. Leaves with fewer than two axes are left alone.

    Weights before a normalization have gradients that are orthogonal to them. Momentum makes their
    norm grow, and so their effective learning rate fall; this is for such networks. The test of the
    cosine finds them; small gradients of other leaves can pass it by chance.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root, and to norms. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, which the learning rate multiplies.
        Default: 0. All leaves decay; for biases without decay use `gradtx.partition`.
      delta: the largest cosine between weights and gradient that counts as orthogonal, times the
        root of the number of elements. Default: 0.1.
      wd_ratio: the factor of the weight decay of scale-invariant weights. Default: 0.1.
      channel_axis: the axis of a leaf with the output channels. Default: -1, as in Flax and Haiku;
        it is 0 in Equinox and PyTorch.

    Raises:
      ValueError: `update` was called without params, or a leaf with two axes or more has no
        `channel_axis`.

    Source: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
    Weights", arXiv:2006.08217.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adamp(0.1)
      >>> params = jnp.array([[3.0], [4.0]])
      >>> gradient = jnp.array([[4.0], [-3.0]])  # orthogonal to them
      >>> print(tx.update(gradient, tx.init(params), params)[0].round(4))
      [[-0.112]
       [ 0.084]]
    """

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        u = ratio(over(mu, s.mu_weight), over(nu, s.nu_weight), eps)
        u, invariant = _projected(u, g, p, delta, eps, channel_axis)
        return _decayed(u, p, invariant, weight_decay, wd_ratio), Slots(mu=mu, nu=nu)

    weights = moment_weights(b1, b2)
    return chain(
        leafwise(ScaleByAdamState, zero_moments, update, params=True, per_step=weights),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(
    ADAMP,
    family="momentum",
    acts_on="leaf",
    probe={"learning_rate": 0.05},
    usual_rate=0.1,
    ranges={"momentum": DECAY},
)
def sgdp(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
    weight_decay: Scalar = 0.0,
    delta: Scalar = 0.1,
    wd_ratio: Scalar = 0.1,
    eps: Scalar = 1e-8,
    channel_axis: int = -1,
) -> GradientTransformation:
    """SGDP: SGD with momentum, without the part of steps that only lengthens invariant weights.

    `v = momentum*v + g`, and `u = v`, or `u = g + momentum*v` with Nesterov momentum. Then `u` and
    `weight_decay` are changed as in `adamp`;
    `p - learning_rate * (u + weight_decay/(1-momentum) * p)`. The factor makes the decay as strong
    as L2 regularization, which momentum amplifies.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      momentum: the momentum coefficient, in [0, 1). Default: 0.9.
      nesterov: whether to use Nesterov momentum. Default: False.
      weight_decay: the coefficient of weight decay; the learning rate and `1/(1-momentum)` multiply
        it. Default: 0. All leaves decay; for biases without decay use `gradtx.partition`.
      delta: the largest cosine between weights and gradient that counts as orthogonal, times the
        root of the number of elements. Default: 0.1.
      wd_ratio: the factor of the weight decay of scale-invariant weights. Default: 0.1.
      eps: added to norms. Default: 1e-8.
      channel_axis: the axis of a leaf with the output channels. Default: -1, as in Flax and Haiku;
        it is 0 in Equinox and PyTorch.

    Raises:
      ValueError: `update` was called without params, or a leaf with two axes or more has no
        `channel_axis`.

    Source: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
    Weights", arXiv:2006.08217.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.sgdp(0.1, momentum=0.5, weight_decay=0.1)
      >>> params = jnp.array([1.0])
      >>> print(tx.update(jnp.array([2.0]), tx.init(params), params)[0])  # 2 + 0.1/0.5
      [-0.22]
    """

    def init(p: Array) -> Slots:
        return Slots(trace=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: None, p: Array) -> tuple[Array, Slots]:
        v = lax.add(g, times(momentum, s.trace))
        u = lax.add(g, times(momentum, v)) if nesterov else v
        u, invariant = _projected(u, g, p, delta, eps, channel_axis)
        return _decayed(u, p, invariant, weight_decay / (1 - momentum), wd_ratio), Slots(trace=v)

    return chain(
        leafwise(TraceState, init, update, params=True), scale_by_learning_rate(learning_rate)
    )
