"""Kinds of weight decay besides `add_decayed_weights`."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._arguments import POSITIVE
from gradtx._roles import Clock, Slot, declared
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.masks import Mask
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots
from gradtx.transforms.masking import narrow


@declared
class WeightDecayState(NamedTuple):
    """The state of kinds of weight decay.

    Attributes:
      count: the number of steps taken.
    """

    count: Clock


@declared
class AddDecayToInitialState(NamedTuple):
    """The state of `add_decay_to_initial`.

    Attributes:
      initial: the initial parameters.
      count: the number of steps taken.
    """

    initial: Slot
    count: Clock


@piece
def add_independent_decay(
    weight_decay: ScalarOrSchedule, mask: MaskOrFn | None = None
) -> GradientTransformation:
    """Subtracts a multiple of the parameters from finished updates: `u - weight_decay * p`.

    Kind: decoupled from the loss and from the learning rate. Nothing multiplies it but its own
    schedule, so that changing the learning rate does not change the decay. It belongs after the
    learning rate, at the end of a chain. Loshchilov and Hutter multiply learning rate and decay by
    one schedule `s` with values in [0, 1]: `chain(scale_by_adam(), scale_by_learning_rate(lambda t:
    1e-3 * s(t)), add_independent_decay(lambda t: 1e-4 * s(t)))`.

    Args:
      weight_decay: the share of the parameters that is subtracted at each step; a number, a scalar
        array or a schedule.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101; named
    "independent" by Wortsman et al., "Small-scale proxies for large-scale Transformer training
    instabilities", arXiv:2309.14322.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.sgd(0.5), gradtx.add_independent_decay(0.01))
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.ones(1), tx.init(params), params)[0])  # -0.5 - 0.02
      [-0.52]
    """
    return _decaying("add_independent_decay", _independent, weight_decay, mask)


def _independent(g: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
    return g - times(s.weight_decay, p), Slots()


@functools.partial(piece, ranges={"max_learning_rate": POSITIVE})
def add_corrected_decay(
    weight_decay: ScalarOrSchedule,
    learning_rate: ScalarOrSchedule,
    max_learning_rate: Scalar,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Adds weight decay in proportion to the learning rate, as AdamC does for normalized layers.

    `g + weight_decay * learning_rate / max_learning_rate * p`, before the learning rate. Kind:
    decoupled from the loss; each step subtracts `weight_decay * learning_rate**2 /
    max_learning_rate * p`. For layers that are followed by a normalization, the ratio of gradients
    to weights then stays constant while the learning rate decays, where the usual decay makes
    gradients grow near the end. All other layers keep the usual decay:
    `chain(scale_by_adam(), add_corrected_decay(0.1, rate, 1e-3, normalized),
    add_decayed_weights(0.1, others), scale_by_learning_rate(rate))`.

    Args:
      weight_decay: the coefficient; a number, a scalar array or a schedule.
      learning_rate: the learning rate of the chain; a number, a scalar array or a schedule.
        `update(..., learning_rate=x)` overrides it here as well.
      max_learning_rate: the largest learning rate of the schedule, positive.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one; the weights of normalized layers. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Defazio, "Why Gradients Rapidly Increase Near the End of Training", arXiv:2506.02285.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.add_corrected_decay(0.1, learning_rate=0.5, max_learning_rate=1.0)
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.zeros(1), tx.init(params), params)[0])  # 0.1 * 0.5 * 2
      [0.1]
    """

    def add(g: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
        share = s.weight_decay * (s.learning_rate / max_learning_rate)
        return g + times(share, p), Slots()

    return _decaying("add_corrected_decay", add, weight_decay, mask, rate=learning_rate)


@piece
def add_cautious_decay(
    weight_decay: ScalarOrSchedule, mask: MaskOrFn | None = None
) -> GradientTransformation:
    """Adds weight decay where it does not oppose the update: `g + weight_decay * (g * p >= 0) * p`.

    Kind: decoupled from the loss if it stands after the rule that scales the gradient and before
    the learning rate, which then multiplies it, as for `add_decayed_weights`. Only those parameters
    decay which the step reduces in magnitude anyway, so that the minimizers of the loss remain its
    minimizers. Of complex numbers `g * p` is `real(conj(g) * p)`.

    Args:
      weight_decay: the coefficient; a number, a scalar array or a schedule.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Chen et al., "Cautious Weight Decay", arXiv:2510.12402.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.add_cautious_decay(0.5)
      >>> params = jnp.array([2.0, -2.0])
      >>> print(tx.update(jnp.ones(2), tx.init(params), params)[0])
      [2. 1.]
    """
    return _decaying("add_cautious_decay", _cautious, weight_decay, mask)


def _cautious(g: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
    # of signs, whose product neither overflows nor vanishes
    agrees = jnp.real(jnp.conj(jnp.sign(g)) * jnp.sign(p)) >= 0
    return g + jnp.where(agrees, times(s.weight_decay, p), 0), Slots()


@piece
def add_decay_to_initial(
    weight_decay: ScalarOrSchedule, mask: MaskOrFn | None = None
) -> GradientTransformation:
    """Adds a multiple of the distance from the initial parameters: `g + weight_decay * (p - p_0)`.

    Kind: as for `add_decayed_weights`, its place in a chain decides. Before the rule that scales
    the gradient it is the L2-SP penalty of the source; between that rule and the learning rate it
    is decoupled, and the learning rate multiplies it. It is for fine-tuning, where the initial
    parameters are those of the pretrained model. They are stored in float32 or wider.

    Args:
      weight_decay: the coefficient; a number, a scalar array or a schedule.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one; all but new layers. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks", arXiv:1802.01483.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.add_decay_to_initial(0.1)
      >>> state = tx.init(jnp.array([2.0]))
      >>> print(tx.update(jnp.zeros(1), state, jnp.array([3.0]))[0])
      [0.1]
    """
    return _decaying(
        "add_decay_to_initial",
        _to_initial,
        weight_decay,
        mask,
        state=AddDecayToInitialState,
        init=lambda p: Slots(initial=p),
    )


def _to_initial(g: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
    return g + times(s.weight_decay, p - s.initial), Slots(initial=s.initial)


def _decaying(
    name: str,
    update: Callable[..., tuple[Array, Slots]],
    weight_decay: ScalarOrSchedule,
    mask: MaskOrFn | None,
    *,
    state: type = WeightDecayState,
    init: Callable[[Array], Slots] | None = None,
    rate: ScalarOrSchedule | None = None,
) -> GradientTransformation:
    scalars = {"weight_decay": weight_decay}
    tx = leafwise(state, init, update, params=True, scalars=scalars, rate=rate, name=name)
    return tx if mask is None else narrow(tx, Mask(mask, name=name))
