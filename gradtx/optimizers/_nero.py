"""Nero."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import axes_within
from gradtx._devices import placed_as
from gradtx._roles import Count, Rate, UnsignedStatistic, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, over, ratio, times
from gradtx.engine.rules import Slots
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import norms


@declared_as("nero")
class NeroState(NamedTuple):
    """The state of `nero`.

    Attributes:
      count: the number of steps taken.
      nu: moving average of the squared norm of each neuron's gradient.
      scale: for each leaf the mean norm of its neurons at the start.
      learning_rate: the learning rate of the last step.
    """

    count: Count
    nu: UnsignedStatistic
    scale: UnsignedStatistic
    learning_rate: Rate


@optimizer(
    "Liu et al., 'Learning by Turning: Neural Architecture Aware Optimisation', arXiv:2102.07227",
    family="layer-wise",
    acts_on="leaf",
    probe={"learning_rate": 1.0},
    usual_rate=0.01,
)
def nero(
    learning_rate: ScalarOrSchedule,
    b2: Scalar = 0.999,
    *,
    constrained: bool = True,
    output_axis: int = 0,
) -> GradientTransformation:
    """Nero: each neuron's weights turn by a fixed angle, with mean 0 and norm 1.

    A neuron has the weights that lead to one output; in leaves with fewer than two axes it is one
    number, and so it is where outputs have one weight each.
    `nu = b2*nu + (1-b2)*|g|^2; p = p - learning_rate * scale * g / sqrt(nu / (1-b2**t))`, with the
    norm over a neuron, `t` from 1, and `scale` the mean norm of the leaf's neurons at the start,
    0.01 if that is 0. Then `p = p - mean(p); p = p / |p|` for each neuron of more than one number.
    The first update projects the parameters to this before the step, so that a network changes its
    function there: start with balanced weights, or let normalization follow them. It has one number
    a neuron as state, and rates near 0.01 suit many networks. Steps depend on where the parameters
    are, so nothing should change them after it.

    Args:
      learning_rate: about the angle of a step; a number, a scalar array or a schedule. The paper's
        is 0.01.
      b2: the decay rate of the average of squared norms. Default: 0.999.
      constrained: whether neurons are kept at mean 0 and norm 1. Default: True.
      output_axis: the axis of the outputs: the first in kernels of PyTorch and Equinox, the last
        (-1) in those of Flax and Haiku. Default: 0.

    Raises:
      ValueError: `update` was called without params, or a leaf with two axes or more has no
        `output_axis`.

    Source: Liu et al., "Learning by Turning: Neural Architecture Aware Optimisation",
    arXiv:2102.07227.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.nero(0.01), jnp.array([[3.0, 1.0], [0.0, 4.0]])
      >>> updates, state = tx.update(jnp.zeros((2, 2)), tx.init(params), params)
      >>> print((params + updates).round(3))
      [[ 0.707 -0.707]
       [-0.707  0.707]]
    """

    def inputs(x: Array) -> tuple[int, ...]:
        """Returns the axes of a neuron's weights; none if it has one."""
        if x.ndim < 2:
            return ()
        outputs = axes_within(output_axis, x.ndim, "output_axis")
        axes = tuple(axis for axis in range(x.ndim) if axis not in outputs)
        return axes if math.prod(x.shape[axis] for axis in axes) > 1 else ()

    def size(x: Array) -> Array:
        return norms(x, axis=inputs(x))[0]

    def projected(p: Array) -> Array:
        if not (constrained and inputs(p)):
            return p
        p = lax.sub(p, jnp.broadcast_to(jnp.mean(p, inputs(p), keepdims=True), p.shape))
        length = size(p)
        return p / jnp.where(length > 0, length, 1)

    def init(p: Array) -> Slots:
        lengths = size(projected(p))
        scale = jnp.sum(lengths) / max(lengths.size, 1)
        nu = placed_as(jnp.zeros_like(lengths), lengths)
        return Slots(nu=nu, scale=jnp.where(scale > 0, scale, 0.01))

    def per_step(step: Scalar) -> dict[str, Array]:
        return {"nu_weight": gathered_weight(b2, step_number(step))}

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        nu = ema(abs_sq(size(g)), s.nu, b2)
        unit = ratio(g, jnp.broadcast_to(over(nu, s.nu_weight), g.shape), 0.0)
        moved = projected(lax.sub(projected(p), times(s.learning_rate * s.scale, unit)))
        return lax.sub(moved, p), Slots(nu=nu, scale=s.scale)

    return leafwise(NeroState, init, update, params=True, rate=learning_rate, per_step=per_step)
