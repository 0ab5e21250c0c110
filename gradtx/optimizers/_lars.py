"""LARS and LAMB: momentum and Adam, with steps relative to the parameters in every layer."""

from gradtx.catalog import optimizer
from gradtx.engine.base import GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.masking import masked
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.trust_ratio import scale_by_trust_ratio


@optimizer(
    "You et al., 'Large Batch Training of Convolutional Networks', arXiv:1708.03888",
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
) -> GradientTransformation:
    """LARS: momentum, with each leaf's step in proportion to the leaf's norm.

    `g = g + weight_decay*p; u = trust_coefficient * norm(p) / (norm(g) + eps) * g;
    v = momentum*v + learning_rate*u; p - v`, with norms over one leaf; where a norm is 0, `u = g`.
    The paper divides by `norm(g) + weight_decay*norm(p)`, with the gradient before the decay,
    instead of the norm of their sum.

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
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(
            scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps), trust_ratio_mask
        ),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


@optimizer(
    "You et al., 'Large Batch Optimization for Deep Learning: Training BERT in 76 minutes', "
    "arXiv:1904.00962",
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
