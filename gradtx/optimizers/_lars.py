"""LARS and LAMB: momentum and Adam, with steps relative to the parameters in every layer."""

import jax
import jax.numpy as jnp

from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    for_tree,
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import AddDecayedWeightsState, add_decayed_weights
from gradtx.transforms.masking import masked
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.trust_ratio import scale_by_trust_ratio
from gradtx.tree.norms import norms


@optimizer(
    "You et al., 'Large Batch Training of Convolutional Networks', arXiv:1708.03888",
    family="layer-wise",
    acts_on="leaf",
    probe={"learning_rate": 0.01, "trust_coefficient": 1.0},
    usual_rate=1.0,
)
def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: MaskOrFn = True,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    trust_ratio_mask: MaskOrFn = True,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
    *,
    separate_norms: bool = False,
) -> GradientTransformation:
    """LARS: momentum, with each leaf's step in proportion to the leaf's norm.

    `g = g + weight_decay*p; u = trust_coefficient * norm(p) / (norm(g) + eps) * g;
    v = momentum*v + learning_rate*u; p - v`, with norms over one leaf; where a norm is 0, `u = g`.
    With `separate_norms`, the divisor is `norm(g) + weight_decay*norm(p) + eps`, with the gradient
    before the decay, as in the paper.

    Args:
      learning_rate: a number, a scalar array or a schedule; it multiplies gradients before they
        enter the velocity.
      weight_decay: the coefficient of L2 regularization, a number or a schedule:
        `weight_decay * p` is added to the gradient. Default: 0.
      weight_decay_mask: which parameters decay: a pytree of booleans, or a function of the
        parameters that returns one. Default: all.
      trust_coefficient: the norm of `u`, relative to the leaf's norm. Default: 0.001, as in the
        paper.
      eps: added to the norm of the gradient. Default: 0.
      trust_ratio_mask: the leaves whose step is scaled to their norm: a pytree of booleans, or a
        function of the parameters that returns one. Biases are often left out. Default: all.
      momentum: the momentum coefficient, in (-1, 1]. Default: 0.9, as in the paper.
      nesterov: whether to use Nesterov momentum. Default: False.
      separate_norms: whether to divide by the sum of the norms of gradient and decay, as in the
        paper and in timm, instead of the norm of their sum. Default: False, as in optax.

    Raises:
      ValueError: `update` was called without params, or a mask differs from them in structure.

    Source: You et al., "Large Batch Training of Convolutional Networks", arXiv:1708.03888.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.lars(1.0, trust_coefficient=0.01)
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(jnp.array([6.0, 8.0]), tx.init(params), params)[0])
      [-0.03 -0.04]
    """
    scaled = (
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(
            scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps), trust_ratio_mask
        ),
    )
    if separate_norms:
        decaying = _with_separate_norms(weight_decay, trust_coefficient, eps)
        others = _with_separate_norms(0.0, trust_coefficient, eps)
        unscaled = add_decayed_weights(weight_decay, weight_decay_mask)
        scaled = (
            masked(masked(decaying, weight_decay_mask), trust_ratio_mask),
            masked(masked(others, _opposite(weight_decay_mask)), trust_ratio_mask),
            masked(unscaled, _opposite(trust_ratio_mask)),
        )
    return chain(*scaled, scale_by_learning_rate(learning_rate), trace(momentum, nesterov))


@piece
def _with_separate_norms(
    weight_decay: ScalarOrSchedule, trust_coefficient: Scalar, eps: Scalar
) -> GradientTransformation:
    """Adds the decay, and scales by the sum of the norms of gradient and decay."""
    scalars = {"weight_decay": weight_decay, "trust_coefficient": trust_coefficient, "eps": eps}
    return leafwise(
        AddDecayedWeightsState, None, _by_separate_norms, params=True, scalars=scalars, name="lars"
    )


def _by_separate_norms(g: Array, s: Slots, step: Array, p: Array) -> tuple[Array, Slots]:
    of_p, of_g = norms(p, g)
    defined = (of_p > 0) & (of_g > 0) & jnp.isfinite(of_p)
    divisor = of_g + s.weight_decay * of_p + s.eps
    ratio = s.trust_coefficient * of_p / jnp.where(defined, divisor, 1)
    return times(jnp.where(defined, ratio, 1), g + times(s.weight_decay, p)), Slots()


def _opposite(mask: MaskOrFn) -> MaskOrFn:
    """Returns the mask that is true where another is not."""

    def opposite(params: Params) -> PyTree:
        return jax.tree.map(lambda x: not x, for_tree(mask, params, "a mask"))

    return opposite


@optimizer(
    "You et al., 'Large Batch Optimization for Deep Learning: Training BERT in 76 minutes', "
    "arXiv:1904.00962",
    family="layer-wise",
    acts_on="leaf",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
)
def lamb(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """LAMB: AdamW, with each leaf's step in proportion to the leaf's norm.

    `u = mu_hat / (sqrt(nu_hat + eps_root) + eps) + weight_decay*p` as in AdamW, see
    `scale_by_adam`; `p - learning_rate * norm(p) / norm(u) * u`, with norms over one leaf; where a
    norm is 0, `p - learning_rate * u`. The paper's function `phi` of the norm of `p` is the
    identity.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9, as in the paper.
      b2: the decay rate of the average of squares. Default: 0.999, as in the paper.
      eps: added to the root. Default: 1e-6, as in the paper.
      eps_root: added under the root. Default: 0.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule:
        `weight_decay * p` is added to Adam's direction. Default: 0; the paper's is 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params, or the mask differs from them in structure.

    Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
    arXiv:1904.00962.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.lamb(0.1)
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(jnp.array([0.0, 70.0]), tx.init(params), params)[0])
      [-0.  -0.5]
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )
