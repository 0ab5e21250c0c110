"""SignSGD, Signum and Tiger, which use only the signs of gradients."""

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.rules import Slots
from gradtx.transforms.averaging import ema
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

SIGN_SGD = (
    "Bernstein et al., 'signSGD: Compressed Optimisation for Non-Convex Problems', arXiv:1802.04434"
)


@piece
def scale_by_sign() -> GradientTransformation:
    """Replaces updates by their signs: `sign(g)`, which is -1, 0 or 1.

    Complex updates keep their angle: `g / |g|`, and 0 where `g` is 0.

    Source: Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems",
    arXiv:1802.04434.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_sign()
      >>> print(tx.update(jnp.array([3.0, 0.0, -0.1]), tx.init(None))[0])
      [ 1.  0. -1.]
    """
    return leafwise(EmptyState, None, _sign, integers=True, name="scale_by_sign")


def _sign(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
    return jnp.sign(g), Slots()


@optimizer(SIGN_SGD, family="sign", probe={"learning_rate": 0.02}, usual_rate=1e-4)
def sign_sgd(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """SignSGD: steps of equal size along the sign of the gradient.

    `p - learning_rate * sign(g)`, see `scale_by_sign`.

    Args:
      learning_rate: a number, a scalar array or a schedule.

    Source: Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems",
    arXiv:1802.04434.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.sign_sgd(1e-3)
      >>> print(tx.update(jnp.array([4.0, -0.1]), tx.init(jnp.zeros(2)))[0])
      [-0.001  0.001]
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@optimizer(
    SIGN_SGD + ", Algorithm 2", family="sign", probe={"learning_rate": 0.02}, usual_rate=1e-4
)
def signum(
    learning_rate: ScalarOrSchedule, beta: Scalar = 0.9, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Signum: SignSGD with momentum.

    `m = beta*m + (1-beta)*g; p - learning_rate * sign(m)`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the paper's is 1e-4.
      beta: the decay rate of the average. Default: 0.9.
      accumulator_dtype: the dtype in which the average is stored. Default: the parameters' dtype,
        and float32 for half precision.

    Source: Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems",
    arXiv:1802.04434, Algorithm 2.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.signum(1e-3, beta=0.5)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in [4.0, -1.0]:  # the average is 2, and then 1/2
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> print(updates)
      [-0.001]
    """
    average = ema(beta, debias=False, accumulator_dtype=accumulator_dtype)
    return chain(average, scale_by_sign(), scale_by_learning_rate(learning_rate))


@optimizer(
    "Su, 'Tiger: A Tight-fisted Optimizer' (2023)",
    family="sign",
    probe={"learning_rate": 0.02},
    usual_rate=1e-3,
)
def tiger(
    learning_rate: ScalarOrSchedule,
    beta: Scalar = 0.965,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: MaskOrFn | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Tiger: the sign of momentum, with decoupled weight decay; Lion with one decay rate.

    `m = beta*m + (1-beta)*g; p - learning_rate * (sign(m) + weight_decay * p)`. Its only slot is
    `m`, which can hold accumulated gradients as well, so that a small device needs no buffer for
    accumulation. It is `signum` with weight decay. For learning rates in proportion to the leaves,
    as the author's program has them for matrices, see `scale_by_param_block_rms`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the author's is 1e-3, and half of it
        for leaves that are not scaled by their root mean square.
      beta: the decay rate of the average. Default: 0.965.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      accumulator_dtype: the dtype in which the average is stored. Default: the parameters' dtype,
        and float32 for half precision.

    Raises:
      ValueError: `update` was called without params.

    Source: Su, "Tiger: A Tight-fisted Optimizer" (2023).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.tiger(1e-3, weight_decay=0.1)
      >>> params = jnp.array([2.0])
      >>> print(tx.update(jnp.array([4.0]), tx.init(params), params)[0])
      [-0.0012]
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
