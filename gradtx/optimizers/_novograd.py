"""NovoGrad: gradients that are normalized layer by layer."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradtx._roles import Count, Slot, UnsignedStatistic, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, root, times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.storing import store_as
from gradtx.tree.filling import real_full_like


@declared
class ScaleByNovogradState(NamedTuple):
    """The state of `scale_by_novograd`.

    Attributes:
      count: the number of steps taken.
      mu: decaying sum of normalized gradients.
      nu: for each leaf one number, the moving average of its gradient's squared norm.
    """

    count: Count
    mu: Slot
    nu: UnsignedStatistic


@piece
def scale_by_novograd(
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Sums gradients, each divided by the root of a moving average of its leaf's squared norm.

    `nu = b2*nu + (1-b2)*norm(g)^2`, but `nu = norm(g)^2` at the first step;
    `mu = b1*mu + g / (sqrt(nu + eps_root) + eps) + weight_decay*p`, with norms over one leaf. The
    result is `mu`: with equal gradients it grows to `1 / (1-b1)` times the first.

    Args:
      b1: the decay rate of the sum. Default: 0.9.
      b2: the decay rate of the average of squared norms. Default: 0.25.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      weight_decay: the coefficient of weight decay: `weight_decay * p` is added to the sum.
        Default: 0.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.

    Raises:
      ValueError: `update` was called without params.

    Source: Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for
    Training of Deep Networks", arXiv:1905.11286, Algorithm 1, which has no `eps` at the first step.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_novograd()
      >>> params = jnp.zeros(2)
      >>> print(tx.update(jnp.array([30.0, 40.0]), tx.init(params), params)[0])
      [0.6 0.8]
    """

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p), nu=real_full_like(jnp.zeros((), p.dtype), 0))

    def update(g: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
        square = jnp.sum(abs_sq(g))
        nu = jnp.where(step == 0, square, ema(square, s.nu, b2))
        normalized = over(g, plus(root(plus(nu, eps_root)), eps))
        decayed = lax.add(normalized, times(weight_decay, p).astype(g.dtype))
        mu = lax.add(times(b1, s.mu), decayed)
        return mu, Slots(mu=mu, nu=nu)

    return store_as(leafwise(ScaleByNovogradState, init, update, params=True), mu=mu_dtype)


@optimizer(
    "Ginsburg et al., 'Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training "
    "of Deep Networks', arXiv:1905.11286",
    family="layer-wise",
    acts_on="leaf",
    probe={"learning_rate": 0.01},
    usual_rate=0.01,
)
def novograd(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> GradientTransformation:
    """NovoGrad: momentum over gradients that are normalized layer by layer.

    `nu = b2*nu + (1-b2)*norm(g)^2; mu = b1*mu + g / (sqrt(nu + eps_root) + eps) + weight_decay*p;
    p - learning_rate * mu`, with norms over one leaf. At the first step `nu = norm(g)^2`. See
    `scale_by_novograd`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's is 0.01 and more.
      b1: the decay rate of the sum. Default: 0.9; the paper's is 0.95.
      b2: the decay rate of the average of squared norms. Default: 0.25; the paper's is 0.98.
      eps: added to the root. Default: 1e-6.
      eps_root: added under the root. Default: 0.
      weight_decay: the coefficient of weight decay: `weight_decay * p` is added to the sum.
        Default: 0.

    Raises:
      ValueError: `update` was called without params.

    Source: Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for
    Training of Deep Networks", arXiv:1905.11286.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.novograd(0.1)
      >>> params = jnp.zeros(2)
      >>> print(tx.update(jnp.array([30.0, 40.0]), tx.init(params), params)[0])
      [-0.06 -0.08]
    """
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay),
        scale_by_learning_rate(learning_rate),
    )
