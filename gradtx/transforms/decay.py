"""Weight decay."""

import functools
from typing import NamedTuple

from jax import lax

from gradtx._arguments import NUMBER
from gradtx._roles import KEPT, Clock, declared
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.masks import Mask
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots
from gradtx.transforms.masking import narrow


@declared
class AddDecayedWeightsState(NamedTuple):
    """The state of `add_decayed_weights`.

    Attributes:
      count: the number of steps taken; may be omitted without a schedule, as in optax.
    """

    count: Clock = KEPT


@functools.partial(piece, ranges={"weight_decay": NUMBER})
def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: MaskOrFn | None = None
) -> GradientTransformation:
    """Adds a multiple of the parameters to the updates: `g + weight_decay * p`.

    Its place in a chain decides what it is. Before the rule that scales the gradient it is L2
    regularization: the decay enters momentum and second moments. After that rule and before the
    learning rate it is decoupled weight decay, as in AdamW: each step subtracts
    `learning_rate * weight_decay * p`.

    Args:
      weight_decay: the coefficient; a number, a scalar array or a schedule. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.add_decayed_weights(0.1)
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.zeros(1), tx.init(params), params)[0])
      [0.2]
    """
    tx = leafwise(
        AddDecayedWeightsState,
        None,
        _decay,
        params=True,
        scalars={"weight_decay": weight_decay},
        integers=True,
        name="add_decayed_weights",
    )
    return tx if mask is None else narrow(tx, Mask(mask, name="add_decayed_weights"))


def _decay(g: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
    return lax.add(g, lax.convert_element_type(times(s.weight_decay, p), g.dtype)), Slots()
