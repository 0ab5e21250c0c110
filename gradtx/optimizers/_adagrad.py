"""AdaGrad."""

from typing import NamedTuple

from gradtx._roles import UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq
from gradtx.engine.rules import Slots
from gradtx.optimizers._rmsprop import divided
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like


@declared
class ScaleByRssState(NamedTuple):
    """The state of `scale_by_rss`.

    Attributes:
      sum_of_squares: the sum of squared gradients, real.
    """

    sum_of_squares: UnsignedSlot


@piece
def scale_by_rss(
    initial_accumulator_value: Scalar = 0.1, eps: Scalar = 1e-7, *, eps_in_sqrt: bool = True
) -> GradientTransformation:
    """Divides by the root of the sum of all squared gradients.

    `sum = sum + |g|^2; g / sqrt(sum + eps)`, or `g / (sqrt(sum) + eps)`, and 0 where the sum is 0.

    Args:
      initial_accumulator_value: the initial value of the sum. Default: 0.1.
      eps: added under the root, or to it, see `eps_in_sqrt`. Default: 1e-7.
      eps_in_sqrt: whether `eps` is added under the root, or to it. Default: under it.

    Source: Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization" (JMLR 2011).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_rss(0.0, 0.0)
      >>> print(tx.update(jnp.array([3.0, 0.0]), tx.init(jnp.zeros(2)))[0])
      [1. 0.]
    """

    def init(p: Array) -> Slots:
        return Slots(sum_of_squares=real_full_like(p, initial_accumulator_value))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        total = s.sum_of_squares + abs_sq(g)
        return divided(g, total, eps, eps_in_sqrt), Slots(sum_of_squares=total)

    return leafwise(ScaleByRssState, init, update)


@optimizer(
    "Duchi, Hazan and Singer, 'Adaptive Subgradient Methods for Online Learning and Stochastic "
    "Optimization' (JMLR 2011)",
    family="AdaGrad",
    probe={"learning_rate": 0.5},
    usual_rate=0.01,
)
def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: Scalar = 0.1,
    eps: Scalar = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    """AdaGrad: each element divided by the root of its summed squared gradients.

    `sum = sum + |g|^2; p - learning_rate * g / sqrt(sum + eps)`, see `scale_by_rss`. The sum only
    grows, so the effective learning rate tends to 0; RMSProp uses a moving average instead.

    Args:
      learning_rate: a number, a scalar array or a schedule; PyTorch's default is 0.01.
      initial_accumulator_value: the initial value of the sum. Default: 0.1; PyTorch's is 0.
      eps: added under the root, or to it, see `eps_in_sqrt`. Default: 1e-7; PyTorch's is 1e-10.
      eps_in_sqrt: whether `eps` is added under the root, or to it. Default: under it, as in Keras;
        PyTorch adds it to the root.

    Source: Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization" (JMLR 2011).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adagrad(0.01, initial_accumulator_value=0.0)
      >>> updates, state = tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))
      >>> print(updates)
      [-0.01]
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt),
        scale_by_learning_rate(learning_rate),
    )
