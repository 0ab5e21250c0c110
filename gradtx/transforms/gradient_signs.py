"""Grams: the magnitudes of an optimizer's steps in the direction of the gradient's signs."""

import jax.numpy as jnp

from gradtx.engine.base import Array, GradientTransformation, TransformationLike
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import widen
from gradtx.transforms.comparing import compared


@piece
def grams(inner: TransformationLike, *, finished: bool = True) -> GradientTransformation:
    """Returns the step of an optimizer with each element turned to descend along the gradient.

    `-sign(g) * |u|` for each element, where `u = inner(g)`; of complex numbers, `sign(g) = g/|g|`.
    Where the gradient is 0, the update is 0. Momentum thus determines how far each element moves,
    and the gradient of this step which way. The state is that of the optimizer.

    The magnitude includes weight decay in `inner`. To leave it alone, as in the paper, turn the
    directions only: `chain(grams(scale_by_adam(), finished=False), add_decayed_weights(0.1),
    scale_by_learning_rate(1e-3))`.

    Args:
      inner: the optimizer.
      finished: whether the updates of `inner` are steps, which are added to the parameters; False
        for directions before a learning rate, of which the result is `sign(g) * |u|`. Default:
        True.

    Source: Cao et al., "Grams: Gradient Descent with Adaptive Momentum Scaling", arXiv:2412.17107.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.grams(gradtx.sgd(1.0, momentum=0.9))
      >>> state = tx.init(jnp.zeros(2))
      >>> _, state = tx.update(jnp.array([1.0, 1.0]), state)
      >>> updates, state = tx.update(jnp.array([0.1, -0.1]), state)
      >>> print(updates.round(2))  # the step of momentum is [-1, -0.8]
      [-1.   0.8]
    """

    def turned(u: Array, g: Array) -> Array:
        size = jnp.abs(widen(u))
        return (jnp.sign(widen(g)) * (-size if finished else size)).astype(u.dtype)

    return compared(inner, turned, "grams")
