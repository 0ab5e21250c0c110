"""TAM: torque-aware momentum."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import DECAY
from gradtx._roles import Slot, Statistic, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import ema, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like
from gradtx.tree.norms import norms


@declared_as("tam")
class TAMState(NamedTuple):
    """The state of `tam`.

    Attributes:
      trace: the velocity.
      correlation: for each leaf the moving average of the cosine between velocity and gradient.
    """

    trace: Slot
    correlation: Statistic


@optimizer(
    "Malviya et al., 'Torque-Aware Momentum', arXiv:2412.18790",
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

    def init(p: Array) -> Slots:
        return Slots(trace=jnp.zeros_like(p), correlation=real_full_like(jnp.zeros((), p.dtype), 0))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        of_v, of_g = (jnp.where(size > 0, size, 1) for size in norms(s.trace, g))
        cosine = jnp.sum(jnp.real(jnp.conj(s.trace / of_v) * (g / of_g)))
        c = ema(cosine, s.correlation, decay_rate)
        v = lax.add(times(momentum, s.trace), times(eps + (1 + c) / 2, g))
        return v, Slots(trace=v, correlation=c)

    return chain(leafwise(TAMState, init, update), scale_by_learning_rate(learning_rate))
