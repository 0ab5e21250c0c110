"""MARS: gradients corrected by their change since the last step."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gradtx._roles import Count, Slot, declared_as
from gradtx.engine.base import Array, GradientTransformation, Params, PyTree, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times, value_of
from gradtx.engine.rules import Slots
from gradtx.matrices.matrixwise import matrixwise
from gradtx.transforms.clipping import shrinking_factor
from gradtx.tree.norms import norms


@declared_as("mars")
class MarsState(NamedTuple):
    """The state of `mars`.

    Attributes:
      count: the number of steps taken.
      last: the gradient of the last step.
    """

    count: Count
    last: Slot


@piece
def mars(
    gamma: Scalar = 0.025,
    b1: Scalar = 0.95,
    max_norm: Scalar = 1.0,
    *,
    weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
) -> GradientTransformation:
    """Reduces the variance of gradients: adds a multiple of their change since the last step.

    `c = g + gamma * b1/(1-b1) * (g - last); c * min(1, max_norm / norm(c))` for each leaf, or
    for each of its matrices, where `last` is the gradient of the last step; at the first step
    `c = g`. It belongs before a method with momentum, of the same decay rate `b1`:
    `chain(mars(b1=0.95), adamw(1e-3, b1=0.95))`. This is the approximate form, which takes the last
    step's gradient on the last step's batch, not on this one's.

    Args:
      gamma: the strength of the correction; 0 for none. Default: 0.025.
      b1: the decay rate of the momentum. Default: 0.95.
      max_norm: the largest norm of a leaf's corrected gradient; `math.inf` for no limit. Default:
        1.
      weight_dimension_numbers: the axes of the matrices in each tensor, whose norms are limited one
        by one: a pytree of `MatrixAxes`, like the parameters or a prefix of them, or a function of
        the parameters that returns one. Default: `None`, the norm of each leaf is limited.

    Raises:
      ValueError: by `init` and `update`: the axes do not match a leaf's shape.

    Source: Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large
    Models", arXiv:2411.10438, Algorithm 2.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.mars(gamma=0.1, b1=0.9)
      >>> state = tx.init(jnp.zeros(1))
      >>> _, state = tx.update(jnp.array([0.1]), state)
      >>> print(tx.update(jnp.array([0.2]), state)[0].round(3))  # 0.2 + 0.9 * 0.1
      [0.29]
    """

    def init(p: Array) -> Slots:
        return Slots(last=jnp.zeros_like(p))

    def rule(axis: tuple[int, ...] | None) -> Callable[..., tuple[Array, Slots]]:
        def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
            change = jnp.where(step == 0, 0, g - s.last)
            c = g + times(gamma * b1 / (1 - b1), change)
            factor = shrinking_factor(norms(c, axis=axis)[0], value_of(max_norm))
            return times(factor, c), Slots(last=g)

        return update

    if weight_dimension_numbers is None:
        return leafwise(MarsState, init, rule(None), name="mars")
    return matrixwise(
        MarsState, init, rule((1, 2)), axes=weight_dimension_numbers,
        argument="weight_dimension_numbers", name="mars",
    )  # fmt: skip
