"""Optimistic gradient descent, and optimistic Adam."""

import functools
import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from gradtx._arguments import NUMBER
from gradtx._roles import Shared, Slot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times
from gradtx.engine.rules import Counter, Slots
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate

OGD = (
    "Mokhtari et al., 'A Unified Analysis of Extra-gradient and Optimistic Gradient Methods for "
    "Saddle Point Problems: Proximal Point Approach', arXiv:1901.08511"
)
OPTIMISTIC_ADAM = "Daskalakis et al., 'Training GANs with Optimism', arXiv:1711.00141"
PROBE: dict[str, Any] = {
    "probe": {"learning_rate": 0.05, "nesterov": False},
    "usual_rate": 0.001,
}


@declared
class ScaleByOptimisticGradientState(NamedTuple):
    """The state of `scale_by_optimistic_gradient`.

    Attributes:
      is_initial_step: whether no step has been taken.
      previous_gradient: the updates of the last step, as they came in.
    """

    is_initial_step: Shared
    previous_gradient: Slot


@functools.partial(piece, ranges={"beta": NUMBER})
def scale_by_optimistic_gradient(alpha: Scalar = 1.0, beta: Scalar = 1.0) -> GradientTransformation:
    """Adds to each update its change since the last step, as a prediction of the next change.

    `alpha * g + beta * (g - g_last)`, where `g_last` is `g` itself at the first step.

    Args:
      alpha: the weight of the update. Default: 1.
      beta: the weight of its change. Default: 1.

    Source: Mokhtari et al., "A Unified Analysis of Extra-gradient and Optimistic Gradient Methods
    for Saddle Point Problems: Proximal Point Approach", arXiv:1901.08511.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_optimistic_gradient()
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [2.0, 5.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates)
      [8.]
    """

    def init(p: Array) -> Slots:
        return Slots(previous_gradient=jnp.zeros_like(p))

    def update(g: Array, s: Slots, first: Scalar, p: None) -> tuple[Array, Slots]:
        change = jnp.where(first, 0, lax.sub(g, s.previous_gradient))
        return lax.add(times(alpha, g), times(beta, change)), Slots(previous_gradient=g)

    return leafwise(ScaleByOptimisticGradientState, init, update, counter=_FIRST)


_FIRST = Counter("is_initial_step", np.True_, jnp.zeros_like)


@optimizer(OGD, family="momentum", probe={"learning_rate": 0.05}, ranges={"beta": NUMBER})
def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule, alpha: Scalar = 1.0, beta: Scalar = 1.0
) -> GradientTransformation:
    """Optimistic gradient descent, which converges in games where plain descent cycles.

    `p - learning_rate * (alpha * g + beta * (g - g_last))`, see `scale_by_optimistic_gradient`. A
    game is a problem in which each player minimizes a loss of its own, such as a GAN.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      alpha: the weight of the gradient. Default: 1.
      beta: the weight of its change since the last step. Default: 1.

    Source: Mokhtari et al., "A Unified Analysis of Extra-gradient and Optimistic Gradient Methods
    for Saddle Point Problems: Proximal Point Approach", arXiv:1901.08511.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.optimistic_gradient_descent(0.1)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [2.0, 5.0]:
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates)
      [-0.8]
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))


@optimizer(OPTIMISTIC_ADAM, family="Adam", **PROBE, ranges={"beta": NUMBER})
def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
) -> GradientTransformation:
    """Optimistic Adam: Adam's direction plus its change since the last step.

    `p - learning_rate * (alpha * u + beta * (u - u_last))`, where `u` is the direction of
    `scale_by_adam` and `u_last` the last step's, or `u` itself at the first step.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      alpha: the weight of the direction. Default: 1.
      beta: the weight of its change. Default: 1, as in the paper.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      nesterov: whether Adam uses Nesterov momentum, which the paper's does not. Default: True.

    Source: Daskalakis et al., "Training GANs with Optimism", arXiv:1711.00141.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.optimistic_adam_v2(1e-3, beta=0.5, nesterov=False)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [1.0, -1.0]:  # the directions are 1 and -0.0526...
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates)
      [0.00057894]
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(OPTIMISTIC_ADAM, family="Adam", **PROBE, fixed_rate=True)
def optimistic_adam(
    learning_rate: ScalarOrSchedule,
    optimism: Scalar | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    """The older form of `optimistic_adam_v2`, for a constant learning rate.

    `p - learning_rate * u - optimism * (u - u_last)`, where `u` is the direction of `scale_by_adam`
    and `u_last` the last step's, or `u` itself at the first step: `optimistic_adam_v2` with
    `beta = optimism / learning_rate`. It emits a `DeprecationWarning`, as in optax.

    Args:
      learning_rate: a number or a scalar array, not 0 if `optimism` is given; for schedules use
        `optimistic_adam_v2`.
      optimism: the weight of the direction's change. Default: the learning rate, as in the paper.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      nesterov: whether Adam uses Nesterov momentum, which the paper's does not. Default: True.

    Raises:
      TypeError: the learning rate is a schedule.
      ValueError: the learning rate is 0, and `optimism` is given.

    Source: Daskalakis et al., "Training GANs with Optimism", arXiv:1711.00141.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.optimistic_adam(1e-3, nesterov=False)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [1.0, -1.0]:  # the directions are 1 and -0.0526...
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates)
      [0.00110526]
    """
    warnings.warn(
        "optimistic_adam is deprecated: use `optimistic_adam_v2` instead, which takes schedules",
        DeprecationWarning,
        stacklevel=4,  # two wrappers of the catalog stand between this function and its caller
    )
    if callable(learning_rate):
        raise TypeError(
            "optimistic_adam: learning_rate must be a number or a scalar array, got a schedule; "
            "optimistic_adam_v2 takes schedules"
        )
    if optimism is not None and isinstance(learning_rate, (int, float)) and learning_rate == 0:
        raise ValueError(
            "optimistic_adam: learning_rate is 0, and optimism cannot be divided by it; "
            f"optimism is {optimism!r}"
        )
    return optimistic_adam_v2(
        learning_rate,
        beta=1.0 if optimism is None else optimism / learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        nesterov=nesterov,
    )
