"""TAM and AdaTAM: torque-aware momentum."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import DECAY
from gradtx._roles import Slot, Statistic, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, ratio, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like
from gradtx.tree.norms import norms

TAM = "Malviya et al., 'Torque-Aware Momentum', arXiv:2412.18790"


@declared_as("tam")
class TAMState(NamedTuple):
    """The state of `tam`.

    Attributes:
      trace: the velocity.
      correlation: for each leaf the moving average of the cosine between velocity and gradient.
    """

    trace: Slot
    correlation: Statistic


@declared_as("adatam")
class AdaTAMState(NamedTuple):
    """The state of `adatam`.

    Attributes:
      trace: the velocity.
      correlation: for each leaf the moving average of the cosine between velocity and gradient.
      nu: moving average of squared gradients, real.
    """

    trace: Slot
    correlation: Statistic
    nu: UnsignedSlot


def _at_rest(p: Array) -> Slots:
    """Returns the velocity and the correlation before any step."""
    return Slots(trace=jnp.zeros_like(p), correlation=real_full_like(jnp.zeros((), p.dtype), 0))


def _turned(
    g: Array, s: Slots, momentum: Scalar, decay_rate: Scalar, eps: Scalar
) -> tuple[Array, Array]:
    """Returns the new velocity and correlation."""
    of_v, of_g = (jnp.where(size > 0, size, 1) for size in norms(s.trace, g))
    cosine = jnp.sum(jnp.real(jnp.conj(s.trace / of_v) * (g / of_g)))
    c = ema(cosine, s.correlation, decay_rate)
    return lax.add(times(momentum, s.trace), times(eps + (1 + c) / 2, g)), c


@optimizer(
    TAM,
    family="momentum",
    acts_on="leaf",
    probe={"learning_rate": 0.1},
    usual_rate=0.1,
    ranges={"momentum": DECAY, "decay_rate": DECAY},
)
def tam(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar = 0.9,
    decay_rate: Scalar = 0.9,
    eps: Scalar = 1e-8,
) -> GradientTransformation:
    """TAM: momentum that gives less weight to gradients that do not point along it.

    `c = decay_rate*c + (1-decay_rate) * cos(v, g)`, with one cosine for each leaf, between the
    velocity and the gradient; `v = momentum*v + (eps + (1+c)/2) * g; p - learning_rate * v`. The
    weights are about 1/2 at first, so that learning rates are about twice those of SGD with
    momentum. It is for training where momentum oscillates, and for shifts of the distribution.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      momentum: the momentum coefficient, in [0, 1). Default: 0.9.
      decay_rate: the decay rate of the average of cosines. Default: 0.9.
      eps: added to the weights, so that no gradient has the weight 0. Default: 1e-8.

    Source: Malviya et al., "Torque-Aware Momentum", arXiv:2412.18790.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.tam(0.1, decay_rate=0.0)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [4.0, -4.0]:  # the second is opposed to the first
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates.round(3))
      [-0.18]
    """

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        v, c = _turned(g, s, momentum, decay_rate, eps)
        return v, Slots(trace=v, correlation=c)

    return chain(leafwise(TAMState, _at_rest, update), scale_by_learning_rate(learning_rate))


@optimizer(
    TAM,
    family="Adam",
    acts_on="leaf",
    probe={"learning_rate": 0.02},
    usual_rate=1e-4,
    ranges={"decay_rate": DECAY},
)
def adatam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    decay_rate: Scalar = 0.9,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """AdaTAM: the velocity of TAM, divided by the root of the second moment.

    `v` is that of `tam` with the momentum `b1`; `nu = b2*nu + (1-b2)*|g|^2;
    p - learning_rate * (v / (sqrt(nu) + eps) + weight_decay*p)`. The velocity is a sum, not an
    average, and there is no bias correction: for constant gradients the first step is 16 times as
    long as Adam's, and late ones 10 times, so learning rates are smaller. The equations are as
    given in pytorch_optimizer's program, with one cosine for each leaf, as in `tam`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the velocity. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      decay_rate: the decay rate of the average of cosines. Default: 0.9.
      eps: added to the root, and to the weights of gradients. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Malviya et al., "Torque-Aware Momentum", arXiv:2412.18790.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adatam(0.1, b2=0.0)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.05]
    """

    def init(p: Array) -> Slots:
        return Slots(**vars(_at_rest(p)), nu=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        v, c = _turned(g, s, b1, decay_rate, eps)
        nu = ema(abs_sq(g), s.nu, b2)
        return ratio(v, nu, eps), Slots(trace=v, correlation=c, nu=nu)

    return chain(
        leafwise(AdaTAMState, init, update),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
