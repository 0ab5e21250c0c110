"""ADOPT: Adam that converges for any decay rate of its second moment."""

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule, Schedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, root, value_of
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import ScaleByAdamState, zero_moments
from gradtx.schedules.made import known_schedule
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.storing import store_as


@known_schedule
def _fourth_root() -> Schedule:
    return lambda step: step**0.25


FOURTH_ROOT = _fourth_root()
"""The bound of normalized gradients, as a function of the step count."""


@piece
def scale_by_adopt(
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Schedule = FOURTH_ROOT,
) -> GradientTransformation:
    """Averages gradients, each divided by the root of the second moment of earlier gradients.

    The first gradient sets `nu = |g|^2`, and the first step is 0. After that, with the step count
    `t` from 1, `n = clip(g / max(sqrt(nu), eps), clip_value_fn(t)); mu = b1*mu + (1-b1)*n;
    nu = b2*nu + (1-b2)*|g|^2; mu`. `clip` bounds each element's magnitude. With Nesterov momentum
    the result is `b1*mu + (1-b1)*n`. There are no bias corrections: `nu` starts from a gradient,
    and `mu` warms up.

    Args:
      b1: the decay rate of the average of normalized gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.9999.
      eps: the smallest denominator. Default: 1e-6.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision; `nu` always has this default.
      nesterov: whether to use Nesterov momentum. Default: False.
      use_clipping: whether to bound normalized gradients. Default: True; without it, an element
        whose first gradient happened to be small makes a large second step.
      clip_value_fn: a function of the step count that returns the bound. Default: `t**0.25`, for
        which the paper proves convergence.

    Source: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal
    Rate", arXiv:2411.02853, Algorithm 2.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_adopt(b1=0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [4.0, 3.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates)
      [0.]
      [0.375]
    """

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        first, square = step == 0, abs_sq(g)
        n = g / jnp.maximum(root(s.nu), value_of(eps))
        n = jnp.where(first, 0, _clip(n, s.bound) if use_clipping else n)
        mu, nu = ema(n, s.mu, b1), jnp.where(first, square, ema(square, s.nu, b2))
        return (ema(n, mu, b1) if nesterov else mu), Slots(mu=mu, nu=nu)

    tx = leafwise(
        ScaleByAdamState,
        zero_moments,
        update,
        scalars={"bound": clip_value_fn} if use_clipping else None,
    )
    return store_as(tx, mu=mu_dtype)


def _clip(x: Array, bound: Scalar) -> Array:
    if not jnp.iscomplexobj(x):
        return jnp.clip(x, -bound, bound)
    size = jnp.abs(x)
    long = size > bound
    return x * lax.convert_element_type(
        jnp.where(long, bound / jnp.where(long, size, 1), 1), x.dtype
    )


@optimizer(
    "Taniguchi et al., 'ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate', "
    "arXiv:2411.02853",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Schedule = FOURTH_ROOT,
) -> GradientTransformation:
    """ADOPT: Adam that divides each gradient by the last step's second moment, then averages.

    `p - learning_rate * mu`, see `scale_by_adopt`. The first step is 0.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of normalized gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.9999.
      eps: the smallest denominator. Default: 1e-6.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      nesterov: whether to use Nesterov momentum. Default: False.
      use_clipping: whether to bound normalized gradients. Default: True.
      clip_value_fn: a function of the step count, 1 at the second step, that returns the bound.
        Default: `t**0.25`.

    Source: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal
    Rate", arXiv:2411.02853.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adopt(1e-3)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([4.0]), state, params)
      >>> print(updates)
      [-0.0001]
    """
    return chain(
        scale_by_adopt(
            b1,
            b2,
            eps,
            mu_dtype,
            nesterov=nesterov,
            use_clipping=use_clipping,
            clip_value_fn=clip_value_fn,
        ),
        scale_by_learning_rate(learning_rate),
    )
