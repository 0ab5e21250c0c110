"""Gradient descent, plain and with momentum."""

from jax.typing import DTypeLike

from gradtx._arguments import MOMENTUM
from gradtx.catalog import optimizer
from gradtx.engine.base import GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate


@optimizer(
    "Robbins and Monro, 'A Stochastic Approximation Method' (1951); with momentum: Sutskever et "
    "al., 'On the importance of initialization and momentum in deep learning' (ICML 2013)",
    family="momentum",
    probe={"learning_rate": 0.1, "momentum": 0.9},
)
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Gradient descent with optional momentum; the learning rate multiplies the velocity.

    Plain: `p - learning_rate * g`. With momentum: `v = momentum * v + g; p - learning_rate * v`;
    with Nesterov momentum: `p - learning_rate * (g + momentum * v)`. This is PyTorch's and optax's
    form; in `gradtx.momentum` the rate is inside the velocity, as textbooks write it. Whether it is
    batch, stochastic or mini-batch descent depends on the gradients it is given.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      momentum: the momentum coefficient, in (-1, 1]; usually 0.9. Negative momentum is for games,
        and 1 sums all gradients. Default: `None`, no momentum.
      nesterov: whether to use Nesterov momentum. Default: False.
      accumulator_dtype: the dtype in which the velocity is stored. Default: the parameters' dtype,
        and float32 for half precision.

    Source: Robbins and Monro, "A Stochastic Approximation Method" (1951); with momentum: Sutskever
    et al., "On the importance of initialization and momentum in deep learning" (ICML 2013).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.sgd(0.1, momentum=0.9)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      >>> print(updates)
      [-0.19]
    """
    velocity = identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)
    return chain(velocity, scale_by_learning_rate(learning_rate))


@optimizer(
    "Rumelhart, Hinton and Williams, 'Learning representations by back-propagating errors' (1986)",
    family="momentum",
    probe={"learning_rate": 0.1, "decay": 0.9},
    ranges={"decay": MOMENTUM},
)
def momentum(learning_rate: ScalarOrSchedule, decay: Scalar = 0.9) -> GradientTransformation:
    """Momentum as in textbooks: the velocity accumulates the scaled gradients.

    `v = decay * v - learning_rate * g; p + v`. At a constant rate this is `sgd` with momentum;
    under a schedule, gradients in the velocity keep the learning rate of their own step.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      decay: the momentum coefficient, in (-1, 1]; often 0.5 at first, 0.9 or 0.99 later. Default:
        0.9.

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors"
    (1986).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.momentum(0.1, decay=0.9)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      >>> print(updates)
      [-0.19]
    """
    return chain(scale_by_learning_rate(learning_rate), trace(decay))


@optimizer(
    "Nesterov, 'A method for solving the convex programming problem with convergence rate "
    "O(1/k^2)' (1983), in the form of Bengio et al., 'Advances in Optimizing Recurrent Networks', "
    "arXiv:1212.0901",
    family="momentum",
    probe={"learning_rate": 0.1, "decay": 0.9},
    ranges={"decay": MOMENTUM},
)
def nesterov(learning_rate: ScalarOrSchedule, decay: Scalar = 0.9) -> GradientTransformation:
    """Nesterov momentum as in textbooks: the velocity accumulates the scaled gradients.

    `v_old = v; v = decay * v - learning_rate * g; p - decay * v_old + (1 + decay) * v`, which is
    `p + decay * v - learning_rate * g`. The parameters are those of the look-ahead point, where the
    gradient is taken.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      decay: the momentum coefficient, in (-1, 1]. Default: 0.9.

    Source: Nesterov, "A method for solving the convex programming problem with convergence rate
    O(1/k^2)" (1983), in the form of Bengio et al., "Advances in Optimizing Recurrent Networks",
    arXiv:1212.0901.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.nesterov(0.1, decay=0.5)
      >>> updates, state = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
      >>> print(updates)
      [-0.15]
    """
    return chain(scale_by_learning_rate(learning_rate), trace(decay, nesterov=True))
