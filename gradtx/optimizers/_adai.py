"""Adai: adaptive inertia."""

from typing import Any, NamedTuple

import jax.numpy as jnp

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
from gradtx.engine.numerics import ema, value_of
from gradtx.engine.scalars import finished, total
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.slots import as_slots, as_updates, zero_slots
from gradtx.tree.present import present, replaced


@declared_as("adai")
class AdaiState(NamedTuple):
    """The state of `adai`.

    Attributes:
      mu: moving average of gradients, each element with a decay rate of its own.
      weight: the sum of the weights in `mu`.
      nu: moving average of squared gradients.
    """

    mu: Slot
    weight: UnsignedSlot
    nu: UnsignedSlot


@optimizer(
    "Xie et al., 'Adaptive Inertia: Disentangling the Effects of Adaptive Learning Rate and "
    "Momentum', arXiv:2006.15815",
    family="momentum",
    acts_on="tree",
    probe={"learning_rate": 0.1},
    usual_rate=1.0,
)
def adai(
    learning_rate: ScalarOrSchedule,
    b0: Scalar = 0.1,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-3,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Adai: momentum with less inertia for elements with large gradients, and one learning rate.

    `nu = b2*nu + (1-b2)*g^2; b1 = clip(1 - b0 * nu / mean(nu), 0, 1 - eps)` for each element,
    with the mean over all leaves; `mu = b1*mu + (1-b1)*g; p - learning_rate * (mu / (1-c) +
    weight_decay*p)`, where `c` is the product of all `b1` so far. Learning rates are 10 times those
    of SGD with momentum of 0.9, whose gradients are not averaged but summed. It aims at the
    minima of SGD, and passes saddle points as fast as Adam.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 1.
      b0: one minus the decay rate of an element with the mean square. Default: 0.1.
      b2: the decay rate of the average of squares. Default: 0.99.
      eps: one minus the largest decay rate. Default: 1e-3.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      TypeError: parameters are complex.
      ValueError: `update` was called without params.

    Source: Xie et al., "Adaptive Inertia: Disentangling the Effects of Adaptive Learning Rate and
    Momentum", arXiv:2006.15815.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adai(1.0)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-4.]
    """
    return chain(
        _scale_by_adai(b0, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _scale_by_adai(b0: Scalar, b2: Scalar, eps: Scalar) -> GradientTransformation:
    def init(params: Params) -> AdaiState:
        return AdaiState(zero_slots(params), zero_slots(params), zero_slots(params))

    @compiled_when_concrete
    def step(updates: Updates, state: AdaiState) -> tuple[Updates, AdaiState]:
        slots = {f"state.{name}": x for name, x in state._asdict().items()}
        given, mu, weight, nu = present(updates, updates=updates, **slots)
        g = as_slots(given, mu)
        size = sum(x.size for x in g)
        # The sum of the largest squares must not overflow; bias correction would cancel.
        nu = [
            jnp.minimum(ema(x * x, v, b2), jnp.finfo(v.dtype).max / size)
            for x, v in zip(g, nu, strict=True)
        ]
        mean = finished(total([jnp.sum(v) for v in nu]) / max(size, 1))
        divisor = jnp.where(mean > 0, mean, 1)
        # One minus the decay rate, which may be too near 1 for its own digits.
        rest = [
            jnp.clip(value_of(b0) * (v / divisor.astype(v.dtype)), value_of(eps), 1) for v in nu
        ]
        mu = [m + r * (x - m) for m, r, x in zip(mu, rest, g, strict=True)]
        weight = [w + r * (1 - w) for w, r in zip(weight, rest, strict=True)]
        averages = [m / jnp.where(w > 0, w, 1) for m, w in zip(mu, weight, strict=True)]
        return replaced(updates, updates, as_updates(averages, given)), AdaiState(
            replaced(state.mu, updates, mu),
            replaced(state.weight, updates, weight),
            replaced(state.nu, updates, nu),
        )

    def update(
        updates: Updates, state: AdaiState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdaiState]:
        del params, extra
        return step(updates, state)

    return coupled(AdaiState, init, update, name="scale_by_adai", real_only=True)
