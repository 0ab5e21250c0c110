"""Amos."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import DECAY, NOT_NEGATIVE
from gradtx._roles import Count, Rate, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema as averaged, over, ratio, times, value_of
from gradtx.engine.rules import Slots
from gradtx.transforms.averaging import ema
from gradtx.transforms.combining import chain
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import safe_sqrt


@declared_as("amos")
class AmosState(NamedTuple):
    """The state of `amos`.

    Attributes:
      count: the number of steps taken.
      nu: moving average of squared gradients, real.
      decays: what has been decayed so far, by which rates and decay fall, real.
      learning_rate: the learning rate of the last step.
    """

    count: Count
    nu: UnsignedSlot
    decays: UnsignedSlot
    learning_rate: Rate


@piece
def _scale_by_amos(
    learning_rate: ScalarOrSchedule, scale: Scalar, b2: Scalar, zeta: Scalar
) -> GradientTransformation:
    def per_step(step: Scalar) -> dict[str, Array]:
        return {"nu_weight": gathered_weight(b2, step_number(step))}

    def init(p: Array) -> Slots:
        return Slots(nu=real_full_like(p, 0), decays=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        nu = averaged(abs_sq(g), s.nu, b2)
        unit = ratio(g, over(nu, s.nu_weight), 0.0)
        rate = value_of(s.learning_rate)
        first = rate * value_of(scale)
        by_rate, by_first = (safe_sqrt(jnp.maximum(x, 0)) for x in (rate, first))
        of_decay = lax.rsqrt(1 + times(value_of(zeta) * by_rate, s.decays))
        of_step = 1 / (1 + times(value_of(zeta) * by_first, s.decays))
        decay = of_decay * times(rate * rate, abs_sq(unit))
        u = -of_step * lax.add(times(first, unit), decay / 2 * p)
        return u, Slots(nu=nu, decays=s.decays + decay * (1 + s.decays))

    return leafwise(
        AmosState,
        init,
        update,
        params=True,
        rate=learning_rate,
        per_step=per_step,
        name="scale_by_amos",
    )


@optimizer(
    "Tian and Parikh, 'Amos: An Adam-style Optimizer with Adaptive Weight Decay towards "
    "Model-Oriented Scale', arXiv:2210.11693",
    family="Adam",
    probe={"learning_rate": 0.1, "scale": 0.5},
    usual_rate=0.01,
    ranges={"zeta": NOT_NEGATIVE, "momentum": DECAY},
)
def amos(
    learning_rate: ScalarOrSchedule,
    scale: Scalar,
    b2: Scalar = 0.999,
    zeta: Scalar = 0.25,
    momentum: Scalar | None = None,
) -> GradientTransformation:
    """Amos: RMSProp whose rate and weight decay fall by themselves, towards weights of a scale.

    `nu = b2*nu + (1-b2)*|g|^2; u = g / sqrt(nu / (1-b2**t)); r = learning_rate;
    c = 1 / sqrt(1 + zeta*sqrt(r)*b); d = 1 / (1 + zeta*sqrt(r*scale)*b); decay = c * r**2 * |u|^2;
    p - d * (r*scale*u + decay/2 * p); b = b + decay * (1 + b)`, where `t` is 1 at the first step
    and `b` starts at 0 for each element. It needs no schedule, no weight decay and no length of the
    run, but the scale of the trained weights. In the paper, that differs by the kind of the
    variable, and averages of the squares over axes save memory; for different scales, `partition`
    parameters to several `amos`. The equations are those of the authors' program.

    Args:
      learning_rate: about `1 / sqrt(N)` for `N` independent batches of training data, and constant;
        a number, a scalar array or a schedule.
      scale: the expected size of the trained weights. The authors take 0.5 for biases, 1 for the
        scales of normalization, `sqrt(1/inputs)` for kernels, or `sqrt(2/inputs)` after a ReLU, and
        `sqrt(2/features)` for embeddings.
      b2: the decay rate of the average of squares, so that `1 - b2` is about the learning rate.
        Default: 0.999.
      zeta: how fast rate and decay fall. Default: 0.25, as in the paper.
      momentum: the decay rate of a moving average of the steps, in [0, 1). Default: `None`, no
        average.

    Raises:
      ValueError: `update` was called without params.

    Source: Tian and Parikh, "Amos: An Adam-style Optimizer with Adaptive Weight Decay towards
    Model-Oriented Scale", arXiv:2210.11693.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.amos(0.1, scale=0.5), jnp.array([2.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])  # 0.05 + 0.01
      [-0.06]
    """
    descent = _scale_by_amos(learning_rate, scale, b2, zeta)
    return descent if momentum is None else chain(descent, ema(momentum, debias=False))
