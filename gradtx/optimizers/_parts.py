"""Optimizers of matrices, with another one for all other leaves."""

from collections.abc import Callable

import jax

from gradtx.engine.base import GradientTransformation, Params, PyTree, TransformationLike
from gradtx.engine.paths import is_none
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
            found = [getattr(x, "ndim", 0) == 2 for x in leaves]
        else:
            found = [a is not None for a in axes_of_leaves(axes, tree)]
        return treedef.unflatten("matrices" if x else "rest" for x in found)

    return partition({"matrices": of_matrices, "rest": of_rest}, labels)
