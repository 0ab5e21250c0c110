"""SM3: AdaGrad in the memory of a few vectors."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import DECAY, FRACTION
from gradtx._roles import Slot, UnsignedStatistic, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, plus, ratio, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import zeros_without


@declared
class ScaleBySM3State(NamedTuple):
    """The state of `scale_by_sm3`.

    Attributes:
      mu: for each leaf a list of vectors, one for each axis: for each row, column or slice the
        largest sum of squares in it. For a scalar one number.
      nu: moving average of scaled gradients.
    """

    mu: UnsignedStatistic
    nu: Slot


@functools.partial(piece, ranges={"b2": FRACTION})
def scale_by_sm3(b1: Scalar = 0.9, b2: Scalar = 1.0, eps: Scalar = 1e-8) -> GradientTransformation:
    """Divides by a bound of each element's sum of squares, kept as one vector for each axis.

    For a matrix: `v[i,j] = b2 * min(row[i], column[j]) + w * |g[i,j]|^2`, with `w = 1` if `b2` is 1
    and `1 - b2` otherwise; `row[i] = max(v[i,j], over j); column[j] = max(v[i,j], over i);
    nu = b1*nu + (1-b1) * g / sqrt(v + eps)`. The result is `nu`. In other tensors each axis has a
    vector; for vectors and scalars this is AdaGrad.

    Args:
      b1: the decay rate of the average of scaled gradients. Default: 0.9.
      b2: the decay rate of the bounds. Default: 1, for sums as in the paper.
      eps: added under the root. Default: 1e-8; the paper has none, and takes 0/0 as 0.

    Source: Anil et al., "Memory-Efficient Adaptive Optimization", arXiv:1901.11150, Algorithm
    SM3-II with the cover of section 4, and its momentum. There each bound is the maximum of this
    step's `v` alone, which for sums is no less than the last bound. PyTorch-SM3 (Enealor) and its
    derivatives take the maximum with the last bound also if `b2 < 1`: their bounds never fall, so
    that large gradients are not forgotten.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_sm3(b1=0.0)
      >>> state = tx.init(jnp.zeros((2, 2)))
      >>> updates, state = tx.update(jnp.array([[3.0, 0.0], [0.0, -4.0]]), state)
      >>> print(updates, *state.mu)
      [[ 1.  0.]
       [ 0. -1.]] [ 9. 16.] [ 9. 16.]
    """

    def init(p: Array) -> Slots:
        axes = range(max(p.ndim, 1))
        bounds = [zeros_without(p, _others(p, i)) for i in axes]
        return Slots(nu=jnp.zeros_like(p), mu=bounds)

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        axes = range(max(g.ndim, 1))
        along = [jnp.expand_dims(x, _others(g, i)) for i, x in zip(axes, s.mu, strict=True)]
        v = lax.add(
            times(b2, jnp.broadcast_to(functools.reduce(jnp.minimum, along), g.shape)),
            times(_weight_of_new(b2), abs_sq(g)),
        )
        # Squares are not negative, so that 0 can be the maximum over an axis without elements.
        bounds = [jnp.max(v, axis=_others(g, i), initial=0) for i in axes]
        nu = ema(ratio(g, plus(v, eps), 0.0), s.nu, b1)
        return nu, Slots(mu=bounds, nu=nu)

    return leafwise(ScaleBySM3State, init, update)


def _others(x: Array, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(x.ndim) if i != axis)


def _weight_of_new(b2: Scalar) -> Scalar:
    if isinstance(b2, (int, float)):
        return 1 - b2 if b2 < 1 else 1.0
    return jnp.where(b2 < 1, 1 - b2, 1)


@optimizer(
    "Anil et al., 'Memory-Efficient Adaptive Optimization', arXiv:1901.11150",
    family="factored",
    acts_on="leaf",
    probe={"learning_rate": 0.2},
    usual_rate=0.1,
    ranges={"momentum": DECAY},
)
def sm3(learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9) -> GradientTransformation:
    """SM3: AdaGrad with one vector for each axis instead of a sum for each element.

    `v = b + g^2; u = g / sqrt(v + 1e-8); m = momentum*m + (1-momentum)*u; p - learning_rate * m`,
    where `b` is the smallest of an element's bounds, one for each axis. Then each bound becomes the
    largest `v` in its row, column or slice; see `scale_by_sm3`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's is 0.1 and more.
      momentum: the decay rate of the average of scaled gradients. Default: 0.9, as in the paper.

    Source: Anil et al., "Memory-Efficient Adaptive Optimization", arXiv:1901.11150.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.sm3(0.1, momentum=0.0)
      >>> print(tx.update(jnp.array([3.0, -4.0]), tx.init(jnp.zeros(2)))[0])
      [-0.1  0.1]
    """
    return chain(scale_by_sm3(momentum), scale_by_learning_rate(learning_rate))
