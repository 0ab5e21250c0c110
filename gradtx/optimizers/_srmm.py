"""SRMM: double-averaging gradient descent."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import NOT_NEGATIVE
from gradtx._roles import Count, Rate, Slot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import times, value_of
from gradtx.engine.rules import COUNT, Counter, Slots
from gradtx.tree.moments import next_count, step_number


@declared_as("srmm")
class SRMMState(NamedTuple):
    """The state of `srmm`.

    Attributes:
      count: the number of steps taken.
      mu: the average of the gradients.
      mean: the average of the parameters at which they were taken.
      learning_rate: the learning rate of the last step.
    """

    count: Count
    mu: Slot
    mean: Slot
    learning_rate: Rate


@optimizer(
    "Lyu, 'Stochastic regularized majorization-minimization with weakly convex and multi-convex "
    "surrogates', arXiv:2201.01652",
    family="averaging",
    probe={"learning_rate": 0.1},
    usual_rate=0.1,
    ranges={"power": NOT_NEGATIVE},
)
def srmm(
    learning_rate: ScalarOrSchedule, power: Scalar = 0.5, window: int | None = None
) -> GradientTransformation:
    """SRMM: gradient descent with averages of both the gradients and the parameters.

    `w = (1 + step % window)**-power; mu = mu + w * (g - mu); mean = mean + w * (p - mean);
    p = mean - learning_rate * mu`, where `step` is 0 at the first step. That is the minimum of the
    average of all quadratic upper bounds that the gradients give, with the curvature
    `1 / learning_rate`: the paper's double-averaging gradient descent. With a `window`, the
    averages start again after that number of steps; without, `step % window` is `step`. Steps are
    small where the averages are long, so that rates are larger than those of SGD. It is analysed
    for samples that depend on each other. In the author's program the parameters and their average
    share memory, which shrinks them in each step, the averages start at 0, and the window has no
    effect; those are not the paper's equations.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      power: the power with which the weights of new gradients fall; 0 for plain gradient descent.
        Default: 0.5.
      window: the number of steps after which the averages start again. Default: `None`, never.

    Raises:
      ValueError: `update` was called without params.

    Source: Lyu, "Stochastic regularized majorization-minimization with weakly convex and
    multi-convex surrogates", arXiv:2201.01652.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.srmm(0.1, power=1.0), jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for g in [2.0, 4.0]:
      ...     updates, state = tx.update(jnp.array([g]), state, params)
      ...     params = params + updates
      >>> print(params)  # the mean of 0 and -0.2, minus 0.1 * 3
      [-0.4]
    """

    def per_step(step: Array) -> dict[str, Array]:
        t = step_number(step if window is None else step % window)
        return {"weight": t ** value_of(-power)}

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), mean=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        mu = lax.add(s.mu, times(s.weight, lax.sub(g, s.mu)))
        mean = lax.add(s.mean, times(s.weight, lax.sub(p, s.mean)))
        u = lax.sub(lax.sub(mean, p), times(s.learning_rate, mu))
        return u, Slots(mu=mu, mean=mean)

    return leafwise(
        SRMMState,
        init,
        update,
        params=True,
        rate=learning_rate,
        per_step=per_step,
        counter=counter_of(window),
    )


def counter_of(window: int | None) -> Counter:
    """Returns the counter of steps, for rules in which something is due in every window.

    Args:
      window: the number of steps in a window, or `None`.
    """
    if window is None:
        return COUNT
    return Counter(advance=functools.partial(next_count, period=window))
