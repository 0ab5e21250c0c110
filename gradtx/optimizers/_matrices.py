"""Parts of optimizers of matrices: another optimizer for all other leaves, and norms."""

import jax.numpy as jnp

from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
    Schedule,
    TransformationLike,
)
from gradtx.engine.rules import value_at
from gradtx.optimizers._adam import adamw
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.matrices import Axes, for_matrices, hidden_matrices
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.norms import norms

HIDDEN = hidden_matrices()
"""The axes of matrices in hidden layers; embeddings and output layers have none."""


def with_rest(
    directions: TransformationLike,
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule,
    mask: MaskOrFn | None,
    axes: Axes,
    of_rest: TransformationLike | None,
) -> GradientTransformation:
    """Returns an optimizer of matrices: steps along directions, and another one for other leaves.

    Args:
      directions: the transformation of the gradients of matrices.
      learning_rate: a number, a scalar array or a schedule.
      weight_decay: the coefficient of decoupled weight decay.
      mask: which parameters decay, or `None` for all.
      axes: which leaves are matrices.
      of_rest: the optimizer of the other leaves; `None` for AdamW with the same learning rate and
        weight decay, and with `b2 = 0.95`, as usual beside methods on matrices.
    """
    steps = chain(
        directions, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )
    if of_rest is None:
        of_rest = adamw(learning_rate, b2=0.95, weight_decay=weight_decay, mask=mask)
    return for_matrices(steps, of_rest, axes)


def with_norm(x: Array, norm: Array | float) -> Array:
    """Returns matrices with the given Frobenius norm; zeros stay zero.

    Args:
      x: matrices `(n, rows, columns)`.
      norm: a number, or an array `(n, 1, 1)`.
    """
    own = norms(x, axis=(1, 2))[0]
    return x * (norm / jnp.where(own > 0, own, 1))


def from_second_step(weight_decay: ScalarOrSchedule) -> Schedule:
    """Returns a schedule of weight decay that is 0 at the first step.

    Args:
      weight_decay: a number or a schedule.
    """

    def schedule(count: Scalar) -> Scalar:
        return jnp.where(jnp.asarray(count) > 0, value_at(weight_decay, count), 0.0)

    return schedule
