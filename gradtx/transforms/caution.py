"""Cautious updates: only where they agree with the gradient."""

import jax.numpy as jnp

from gradtx.engine.base import Array, GradientTransformation, TransformationLike
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import widen
from gradtx.transforms.comparing import compared


@piece
def cautious(inner: TransformationLike, *, finished: bool = True) -> GradientTransformation:
    """Sets those elements of an optimizer's updates to zero that do not descend along the gradient.

    `u = inner(g); agrees = -u * g > 0; u * agrees * n / (sum(agrees) + 1)` for each leaf of `n`
    elements, where `g` is the gradient of this step, and `u` contains the momentum of earlier ones.
    The factor keeps the size of the step about constant. Of complex numbers `u * g` is
    `real(conj(u) * g)`. The state is that of the optimizer. Elements that are not a number remain.

    Weight decay in `inner` is masked together with the rest. To leave it alone, as the authors'
    programs do, mask the directions only: `chain(cautious(scale_by_adam(), finished=False),
    add_decayed_weights(0.1), scale_by_learning_rate(1e-3))`.

    Args:
      inner: the optimizer.
      finished: whether the updates of `inner` are steps, which are added to the parameters; False
        for directions that have the sign of the gradient, before a learning rate. Default: True.

    Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code",
    arXiv:2411.16085.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.cautious(gradtx.sgd(1.0, momentum=0.9))
      >>> state = tx.init(jnp.zeros(2))
      >>> _, state = tx.update(jnp.array([1.0, 1.0]), state)
      >>> updates, state = tx.update(jnp.array([0.1, -0.1]), state)
      >>> print(updates)  # the second element would go on against its gradient
      [-1.  0.]
    """
    return compared(inner, lambda u, g: _where_they_agree(u, g, finished), "cautious")


def _where_they_agree(u: Array, g: Array, finished: bool) -> Array:
    # of signs, whose product neither overflows nor vanishes
    product = jnp.real(jnp.conj(jnp.sign(widen(u))) * jnp.sign(widen(g)))
    masked = product >= 0 if finished else product <= 0  # False for NaN
    kept = jnp.sum(~masked, dtype=product.dtype)
    return jnp.where(masked, 0, widen(u) * (u.size / (kept + 1))).astype(u.dtype)
