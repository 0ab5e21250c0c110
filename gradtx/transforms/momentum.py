"""Momentum: a decaying sum of updates over steps."""

import functools
from typing import NamedTuple

from jax import lax
from jax.typing import DTypeLike

from gradtx._arguments import MOMENTUM
from gradtx._roles import Slot, declared
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots
from gradtx.transforms.storing import store_as
from gradtx.tree.filling import zeros_like


@declared
class TraceState(NamedTuple):
    """The state of `trace`.

    Attributes:
      trace: the velocity.
    """

    trace: Slot


@functools.partial(piece, ranges={"decay": MOMENTUM})
def trace(
    decay: Scalar, nesterov: bool = False, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Replaces updates by their decaying sum, which is momentum: `v = g + decay * v`.

    The result is `v`, or `g + decay * v` with Nesterov momentum. Before the learning rate in a
    chain, the velocity sums gradients (optax, PyTorch). After it, the velocity sums steps, as in
    textbooks: `v = decay * v - learning_rate * g`. The two differ when the learning rate changes.

    Args:
      decay: momentum coefficient, in (-1, 1]; usually 0.9. Negative momentum is for games
        (arXiv:1807.04740), and 1 sums all updates.
      nesterov: whether to use Nesterov momentum. Default: False.
      accumulator_dtype: the dtype in which the velocity is stored. Default: the parameters' dtype,
        and float32 for half precision.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning"
    (ICML 2013); Polyak, "Some methods of speeding up the convergence of iteration methods" (1964).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.trace(0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(3):
      ...     updates, state = tx.update(jnp.ones(1), state)
      >>> print(updates)
      [1.75]
    """

    def init(p: Array) -> Slots:
        return Slots(trace=zeros_like(p))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        v = lax.add(g, times(decay, s.trace))
        return (lax.add(g, times(decay, v)) if nesterov else v), Slots(trace=v)

    return store_as(leafwise(TraceState, init, update), trace=accumulator_dtype)
