"""Optimizers of matrices, with another one for all other leaves."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.engine.base import (
    GradientTransformation,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    Schedule,
    TransformationLike,
)
from gradtx.engine.paths import is_none
from gradtx.engine.rules import value_at
from gradtx.matrices.layout import axes_of_leaves
from gradtx.transforms.partitioning import partition


def matrices_and_rest(
    of_matrices: TransformationLike,
    of_rest: TransformationLike,
    axes: PyTree | Callable[[Params], PyTree] | None,
) -> GradientTransformation:
    """Returns a partition into matrices and all other leaves.

    Args:
      of_matrices: the transformation of matrices.
      of_rest: the transformation of the other leaves.
      axes: the axes of the matrices in each tensor, with `None` for other leaves; or `None` for
        the leaves with two axes.
    """

    def labels(tree: PyTree) -> PyTree:
        leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
        if axes is None:
            # A gradient that is missing may be that of a matrix.
            found = [x is None or getattr(x, "ndim", 0) == 2 for x in leaves]
        else:
            found = [a is not None for a in axes_of_leaves(axes, tree)]
        return treedef.unflatten("matrices" if x else "rest" for x in found)

    return partition({"rest": of_rest, "matrices": of_matrices}, labels)


def from_second_step(weight_decay: ScalarOrSchedule) -> Schedule:
    """Returns a schedule of weight decay that is 0 at the first step.

    Args:
      weight_decay: a number or a schedule.
    """

    def schedule(count: Scalar) -> Scalar:
        return jnp.where(jnp.asarray(count) > 0, value_at(weight_decay, count), 0.0)

    return schedule
