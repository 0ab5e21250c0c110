"""AdEMAMix: Adam with a second, much slower average of gradients; and its simplified form."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradtx._roles import Count, Slot, UnsignedSlot, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio, times
from gradtx.engine.rules import Counter, Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.storing import store_as
from gradtx.tree.filling import real_full_like
from gradtx.tree.moments import gathered_weight, step_number


@declared
class ScaleByAdemamixState(NamedTuple):
    """The state of `scale_by_ademamix`.

    Attributes:
      count: the number of steps taken, for the bias corrections.
      count_m2: the number of steps taken, for the schedules of `b3` and `alpha`; set it to 0 to
        restart them.
      m1: fast moving average of gradients.
      m2: slow moving average of gradients.
      nu: moving average of squared gradients, real.
    """

    count: Count
    count_m2: Count
    m1: Slot
    m2: Slot
    nu: UnsignedSlot


@declared
class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """The state of `scale_by_simplified_ademamix`.

    Attributes:
      t: the number of steps taken.
      m: decaying sum of gradients.
      n: moving average of squared gradients, real.
    """

    t: Count
    m: Slot
    n: UnsignedSlot


@piece
def scale_by_ademamix(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Scales by Adam's rule, with a slow average of gradients added to the fast one.

    `m1 = b1*m1 + (1-b1)*g; m2 = b3*m2 + (1-b3)*g; nu = b2*nu + (1-b2)*|g|^2;
    (m1 / (1-b1**t) + alpha * m2) / (sqrt(nu / (1-b2**t) + eps_root) + eps)`, where `t` is 1 at the
    first step. `m2` averages over about `1 / (1-b3)` steps, and has no bias correction.

    Args:
      b1: the decay rate of the fast average. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      b3: the decay rate of the slow average; a number, a scalar array or a schedule. Default:
        0.9999.
      alpha: the weight of the slow average; a number, a scalar array or a schedule. In the paper
        `b3` rises from `b1` and `alpha` from 0; without these schedules, long runs are unstable at
        the beginning. Default: 6.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which `m1` and `m2` are stored. Default: the parameters' dtype, and
        float32 for half precision. In bfloat16 the changes of `m2` would be lost to rounding.

    Source: Pagliardini et al., "The AdEMAMix Optimizer: Better, Faster, Older", arXiv:2409.03137,
    Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_ademamix(b3=0.75, alpha=2.0)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [1.5]
    """

    def init(p: Array) -> Slots:
        return Slots(m1=jnp.zeros_like(p), m2=jnp.zeros_like(p), nu=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        m1, nu = ema(g, s.m1, b1), ema(abs_sq(g), s.nu, b2)
        m2 = ema(g, s.m2, s.b3)
        mixed = lax.add(over(m1, s.m1_weight), times(s.alpha, m2))
        u = ratio(mixed, plus(over(nu, s.nu_weight), eps_root), eps)
        return u, Slots(m1=m1, m2=m2, nu=nu)

    tx = leafwise(
        ScaleByAdemamixState,
        init,
        update,
        scalars={"b3": b3, "alpha": alpha},
        per_step=_weights(m1_weight=b1, nu_weight=b2),
        counter=Counter(clock="count_m2"),
    )
    return store_as(tx, m1=mu_dtype, m2=mu_dtype)


def _weights(**decays: Scalar) -> Callable[[Scalar], dict[str, Array]]:
    return lambda step: {n: gathered_weight(b, step_number(step)) for n, b in decays.items()}


@optimizer(
    "Pagliardini et al., 'The AdEMAMix Optimizer: Better, Faster, Older', arXiv:2409.03137",
    family="Adam",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """AdEMAMix: AdamW with a second, slow average of gradients over thousands of steps.

    `p - learning_rate * ((m1_hat + alpha*m2) / (sqrt(nu_hat + eps_root) + eps) + weight_decay*p)`,
    see `scale_by_ademamix`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the fast average. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      b3: the decay rate of the slow average; a number, a scalar array or a schedule. Default:
        0.9999, which averages over 10,000 steps, for runs of at least that length.
      alpha: the weight of the slow average; a number, a scalar array or a schedule. Default: 5.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      mu_dtype: the dtype in which both averages of gradients are stored. Default: the parameters'
        dtype, and float32 for half precision.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Pagliardini et al., "The AdEMAMix Optimizer: Better, Faster, Older", arXiv:2409.03137.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.ademamix(1e-3, b3=gradtx.linear_schedule(0.9, 0.9999, 1000))
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.0015]
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@piece
def scale_by_simplified_ademamix(
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: Scalar = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
) -> GradientTransformation:
    """Scales by the simplified AdEMAMix rule: one sum as momentum, plus the gradient itself.

    `m = b1*m + g; n = b2*n + (1-b2)*|g|^2; (m + alpha*g) / (sqrt(n / (1-b2**t) + eps_root) + eps)`,
    where `t` is 1 at the first step. `m` is a sum, so steps are up to `1 / (1-b1)` times as long
    as Adam's.

    Args:
      b1: the decay rate of the sum of gradients. Default: 0.99.
      b2: the decay rate of the average of squares. Default: 0.95.
      alpha: the additional weight of this step's gradient, larger for smaller batches. Default: 0.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.

    Source: Morwani et al., "Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated
    SGD Variants", arXiv:2502.02431.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_simplified_ademamix(alpha=0.5)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [1.5]
    """

    def init(p: Array) -> Slots:
        return Slots(m=jnp.zeros_like(p), n=real_full_like(p, 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        m, n = lax.add(times(b1, s.m), g), ema(abs_sq(g), s.n, b2)
        mixed = lax.add(m, times(alpha, g))
        return ratio(mixed, plus(over(n, s.n_weight), eps_root), eps), Slots(m=m, n=n)

    return leafwise(
        ScaleBySimplifiedAdEMAMixState,
        init,
        update,
        per_step=_weights(n_weight=b2),
        counter=Counter("t"),
    )


@optimizer(
    "Morwani et al., 'Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD "
    "Variants', arXiv:2502.02431",
    family="Adam",
    probe={"learning_rate": 0.003, "b1": 0.9},
    usual_rate=1e-4,
)
def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: Scalar = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Simplified AdEMAMix: AdamW with a sum as momentum, plus the gradient itself.

    `p - learning_rate * ((m + alpha*g) / (sqrt(n_hat + eps_root) + eps) + weight_decay*p)`, see
    `scale_by_simplified_ademamix`. As `m` is a sum, learning rates are about `1 - b1` times Adam's.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the sum of gradients. Default: 0.99.
      b2: the decay rate of the average of squares. Default: 0.95.
      alpha: the additional weight of this step's gradient, larger for smaller batches: the authors
        found values near 0 best for batches of a million tokens, near 100 for 32 thousand. Default:
        0.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Morwani et al., "Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated
    SGD Variants", arXiv:2502.02431.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.simplified_ademamix(1e-4, alpha=9.0)
      >>> params = jnp.zeros(1)
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.001]
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
