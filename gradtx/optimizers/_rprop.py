"""Resilient backpropagation."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx._roles import Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import value_of
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale


@declared
class ScaleByRpropState(NamedTuple):
    """The state of `scale_by_rprop`.

    Attributes:
      step_sizes: each element's step size.
      prev_updates: the last gradient, 0 where its sign had changed.
    """

    step_sizes: UnsignedSlot
    prev_updates: Slot


@piece
def scale_by_rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> GradientTransformation:
    """Replaces gradients by their sign times a step size that is adapted for each element.

    Where `g` has the sign of the last gradient, `size = min(size * eta_plus, max_step_size)`; where
    the sign changed, `size = max(size * eta_minus, min_step_size)` and `g = 0`, so that this step
    is 0 and the next keeps the size. The result is `sign(g) * size`.

    Args:
      learning_rate: the first step size of every element; a number or scalar array, not a schedule.
      eta_minus: the factor after a change of sign, in [0, 1]; usually below 1. Default: 0.5.
      eta_plus: the factor while the sign holds, at least 1. Default: 1.2.
      min_step_size: the smallest size. Default: 1e-6.
      max_step_size: the largest size. Default: 50.

    Raises:
      TypeError: the learning rate is a schedule, or parameters are complex.

    Source: Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the
    RPROP algorithm" (1993), in the variant iRprop- of Igel and Hüsken, "Improving the Rprop
    Learning Algorithm" (2000).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_rprop(0.1)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [3.0, 5.0, -1.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates)
      [0.1]
      [0.12]
      [0.]
    """
    least, most = value_of(min_step_size), value_of(max_step_size)

    def init(p: Array) -> Slots:
        first = jnp.full_like(p, value_of(learning_rate))
        return Slots(step_sizes=first, prev_updates=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        agreement = jnp.sign(g) * jnp.sign(s.prev_updates)  # the product itself may underflow
        grown = jnp.minimum(s.step_sizes * eta_plus, most)
        shrunk = jnp.maximum(s.step_sizes * eta_minus, least)
        size = jnp.where(agreement > 0, grown, jnp.where(agreement < 0, shrunk, s.step_sizes))
        g = jnp.where(agreement < 0, 0, g)
        return jnp.sign(g) * size, Slots(step_sizes=size, prev_updates=g)

    return leafwise(ScaleByRpropState, init, update, real_only=True)


@optimizer(
    "Riedmiller and Braun, 'A direct adaptive method for faster backpropagation learning: the "
    "RPROP algorithm' (1993), in the variant iRprop- of Igel and Hüsken (2000)",
    family="sign",
    probe={"learning_rate": 0.05},
    fixed_rate=True,
)
def rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> GradientTransformation:
    """RProp: steps by the gradient's sign, with a size that each element adapts.

    `p - sign(g) * size`, see `scale_by_rprop`. It is for full batches: in small batches, noise
    changes signs at random.

    Args:
      learning_rate: the first step size of every element; a number or scalar array, not a schedule.
      eta_minus: the factor after a change of sign. Default: 0.5.
      eta_plus: the factor while the sign holds. Default: 1.2.
      min_step_size: the smallest size. Default: 1e-6.
      max_step_size: the largest size. Default: 50.

    Raises:
      TypeError: the learning rate is a schedule, or parameters are complex.

    Source: Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the
    RPROP algorithm" (1993), in the variant iRprop- of Igel and Hüsken (2000).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.rprop(0.1)
      >>> print(tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0])
      [-0.1  0.1]
    """
    return chain(
        scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size),
        scale(-1.0),
    )
