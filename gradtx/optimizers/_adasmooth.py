"""AdaSmooth."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._roles import Count, Slot, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, plus, ratio, times
from gradtx.engine.rules import Slots
from gradtx.optimizers._srmm import counter_of
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like


@declared_as("adasmooth")
class AdaSmoothState(NamedTuple):
    """The state of `adasmooth`.

    Attributes:
      count: the number of steps taken.
      start: the parameters at the start of the window.
      last: the parameters at the last step.
      path: the length of the way of each element since the start of the window, real.
      nu: moving average of squared gradients, real.
    """

    count: Count
    start: Slot
    last: Slot
    path: UnsignedSlot
    nu: UnsignedSlot


@optimizer(
    "Lu, 'AdaSmooth: An Adaptive Learning Rate Method based on Effective Ratio', arXiv:2204.00825",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def adasmooth(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.5,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-6,
    window: int | None = None,
) -> GradientTransformation:
    """AdaSmooth: RMSProp whose average is short where parameters go straight, and else long.

    `e = |p - start| / path` for each element: its distance from the start of the window divided by
    the length of its way, 1 as long as there is none. `c = (b2-b1)*e + 1-b2;
    nu = (1-c**2)*nu + c**2*|g|^2; p - learning_rate * g / sqrt(nu + eps)`. The average has a decay
    rate between 0.75 and 0.9999 with the defaults, no momentum and no bias correction: `c` can be
    as small as `1-b2`, so that after zero gradients steps are up to 100 times the learning rate. It
    needs four slots. The equations are as given in Papers with Code; the ratio there is over the
    last steps, whose parameters would have to be stored, and here since the start of the window.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's is 1e-3.
      b1: the decay rate for elements that go straight, before squaring. Default: 0.5.
      b2: the decay rate for elements that come back, before squaring. Default: 0.99.
      eps: added under the root. Default: 1e-6.
      window: the number of steps after which a new window starts, such as those of an epoch.
        Default: `None`, one window for the run.

    Raises:
      ValueError: `update` was called without params.

    Source: Lu, "AdaSmooth: An Adaptive Learning Rate Method based on Effective Ratio",
    arXiv:2204.00825.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.adasmooth(0.1), jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.2]
    """

    def init(p: Array) -> Slots:
        zero = real_full_like(p, 0)
        return Slots(start=p, last=p, path=zero, nu=zero)

    def update(g: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
        start, path = s.start, s.path
        if window is not None:
            begins = step % window == 0
            start, path = jnp.where(begins, s.last, start), jnp.where(begins, 0, path)
        path = lax.add(path, jnp.abs(lax.sub(p, s.last)))
        moves = path > 0
        straight = jnp.abs(lax.sub(p, start)) / jnp.where(moves, path, 1)
        # The ratio is above 1 if iterates are stored in few bits; the average must remain positive.
        c = plus(times(b2 - b1, jnp.where(moves, jnp.minimum(straight, 1), 1)), 1 - b2)
        square = c * c
        nu = (1 - square) * s.nu + square * abs_sq(g)
        u = ratio(g, plus(nu, eps), 0.0)
        return u, Slots(start=start, last=p, path=path, nu=nu)

    return chain(
        leafwise(AdaSmoothState, init, update, params=True, counter=counter_of(window)),
        scale_by_learning_rate(learning_rate),
    )
