"""A2Grad."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._arguments import NOT_NEGATIVE, POSITIVE
from gradtx._roles import Count, Rate, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, plus, root, times, value_of
from gradtx.engine.rules import Slots
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import step_number


@declared_as("a2grad")
class A2GradState(NamedTuple):
    """The state of `a2grad`.

    Attributes:
      count: the number of steps taken.
      fast: the fast iterate, which the parameters follow.
      mean: the mean of all gradients.
      nu: moving average of the squared distances between gradients and their mean, real.
      nu_max: the largest `nu` so far, real.
      learning_rate: the learning rate of the last step.
    """

    count: Count
    fast: Slot
    mean: Slot
    nu: UnsignedSlot
    nu_max: UnsignedSlot
    learning_rate: Rate


@optimizer(
    "Deng, Cheng and Lan, 'Optimal Adaptive and Accelerated Stochastic Gradient Descent', "
    "arXiv:1810.00553",
    family="AdaGrad",
    probe={"learning_rate": 1.0},
    ranges={"beta": NOT_NEGATIVE, "lipschitz": POSITIVE},
)
def a2grad(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: Scalar = 10.0,
    lipschitz: Scalar = 10.0,
    rho: Scalar = 0.5,
) -> GradientTransformation:
    """A2Grad: Nesterov's accelerated method with rates from the deviations of gradients.

    With `k = 0` at the first step, and `d = g - mean(all g)`: `nu = rho*nu + (1-rho)*|d|^2;
    nu_max = max(nu_max, nu); c = learning_rate / (2*lipschitz/(k+1) + beta*sqrt((k+1)*nu_max));
    x = x - c*g; p = (1-a)*p + a*x - (1-a)*b*c*g`, where `a = 2/(k+3)`, `b = 2/(k+2)`, and the fast
    iterate `x` starts at `p`. It is the paper's A2Grad-exp; the other two sum up `|d|^2` instead.
    It has the optimal rate for smooth convex problems. The steps of `x` grow with `k`, as in
    Nesterov's method, until deviations dominate, and the mean of all gradients forgets nothing, so
    that it suits a fixed convex problem better than a network. The equations are as given in the
    program and the report of A. Severilov et al.; that program has one `nu` for each array, the
    paper and this have one for each element.

    Args:
      learning_rate: the factor of `c`; a number, a scalar array or a schedule. Default: 1, as in
        the paper, which has none.
      beta: the weight of the deviations. Default: 10.
      lipschitz: the Lipschitz constant of the gradients, positive. Default: 10.
      rho: the decay rate of the average of deviations. Default: 0.5.

    Raises:
      ValueError: `lipschitz` is not positive, or `update` was called without params.

    Source: Deng, Cheng and Lan, "Optimal Adaptive and Accelerated Stochastic Gradient Descent",
    arXiv:1810.00553.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.a2grad(lipschitz=1.0), jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])  # 2/3 * 4/2 + 1/3 * 4/2
      [-2.]
    """

    def per_step(step: Scalar) -> dict[str, Array]:
        t = step_number(step)
        return {"t": t, "smooth": jnp.divide(value_of(2 * lipschitz), t)}

    def init(p: Array) -> Slots:
        zero = real_full_like(p, 0)
        return Slots(fast=p, mean=jnp.zeros_like(p), nu=zero, nu_max=zero)

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        mean = lax.add(s.mean, times(1 / s.t, lax.sub(g, s.mean)))
        nu = ema(abs_sq(lax.sub(g, mean)), s.nu, rho)
        nu_max = jnp.maximum(s.nu_max, nu)
        divisor = plus(times(beta, root(times(s.t, nu_max))), s.smooth)
        move = times(s.learning_rate, g) / divisor
        fast = lax.sub(s.fast, move)
        a, b = 2 / (s.t + 2), 2 / (s.t + 1)
        ahead = lax.sub(lax.sub(s.fast, p), move)
        u = lax.sub(times(a, ahead), times((1 - a) * b, move))
        return u, Slots(fast=fast, mean=mean, nu=nu, nu_max=nu_max)

    return leafwise(A2GradState, init, update, params=True, rate=learning_rate, per_step=per_step)
