"""AvaGrad."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx import tree
from gradtx._roles import Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    GradientTransformation,
    MaskOrFn,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.numerics import ema, plus, root
from gradtx.engine.scalars import finished
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.slots import as_slots, as_updates, zero_slots
from gradtx.tree.present import present, replaced


@declared_as("avagrad")
class AvaGradState(NamedTuple):
    """The state of `avagrad`.

    Attributes:
      mu: moving average of gradients.
      nu: moving average of squared gradients.
    """

    mu: Slot
    nu: UnsignedSlot


@optimizer(
    "Savarese et al., 'Domain-independent Dominance of Adaptive Methods', arXiv:1912.01823",
    family="Adam",
    acts_on="tree",
    probe={"learning_rate": 0.1},
    usual_rate=0.1,
)
def avagrad(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 0.1,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """AvaGrad: Adam whose learning rates have the root mean square 1, whatever `eps` is.

    `mu = b1*mu + (1-b1)*g; rate = 1 / (sqrt(nu) + eps); nu = b2*nu + (1-b2)*g^2;
    p - learning_rate * (mu * rate / rms(rate) + weight_decay*p)`, with the root mean square over
    all leaves. A large `eps` makes it SGD with momentum, a small one Adam; as it does not change
    the size of steps, it can be tuned apart from the learning rate. `rate` has only the gradients
    before this one. There is no bias correction, as in the paper; the authors' program has that of
    Adam, and takes no first step.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root; how little the rates adapt. Default: 0.1.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      TypeError: parameters are complex.
      ValueError: `update` was called without params.

    Source: Savarese et al., "Domain-independent Dominance of Adaptive Methods", arXiv:1912.01823.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.avagrad(0.1)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.04]
    """
    return chain(
        _scale_by_avagrad(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _scale_by_avagrad(b1: Scalar, b2: Scalar, eps: Scalar) -> GradientTransformation:
    def init(params: Params) -> AvaGradState:
        return AvaGradState(zero_slots(params), zero_slots(params))

    @compiled_when_concrete
    def step(updates: Updates, state: AvaGradState) -> tuple[Updates, AvaGradState]:
        slots = {"state.mu": state.mu, "state.nu": state.nu}
        given, mu, nu = present(updates, updates=updates, **slots)
        g = as_slots(given, mu)
        mu = [ema(x, m, b1) for x, m in zip(g, mu, strict=True)]
        rates = [1 / plus(root(v), eps) for v in nu]
        size = max(sum(x.size for x in rates), 1)
        norm = tree.norm(rates)
        factor = finished(size**0.5 / jnp.where(norm > 0, norm, 1))
        moves = [m * (r * factor.astype(r.dtype)) for m, r in zip(mu, rates, strict=True)]
        nu = [ema(x * x, v, b2) for x, v in zip(g, nu, strict=True)]
        return replaced(updates, updates, as_updates(moves, given)), AvaGradState(
            replaced(state.mu, updates, mu), replaced(state.nu, updates, nu)
        )

    def update(
        updates: Updates, state: AvaGradState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AvaGradState]:
        del params, extra
        return step(updates, state)

    return coupled(AvaGradState, init, update, name="scale_by_avagrad", real_only=True)
