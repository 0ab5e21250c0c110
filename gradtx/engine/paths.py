"""Paths of leaves, and the alignment of pytrees."""

import jax

from gradtx._arguments import describe_difference as describe_difference
from gradtx.engine.base import PyTree, PyTreeDef


class StructureError(ValueError):
    """Raised if two pytrees differ in structure.

    Attributes:
      stages: the first and the last of the links that raised it, among those that run together.
      owner: the name of the wrapper or optimizer whose mask does not fit, or empty.
    """

    stages: tuple[int, int] = (0, 0)
    owner: str = ""


def is_none(x: PyTree) -> bool:
    """Returns whether `x` is `None`; used as `is_leaf` to keep `None` as a leaf."""
    return x is None


def nth_path(tree: PyTree, i: int) -> str:
    """Returns the path of the i-th leaf in Python's notation, to be appended to a name."""
    return jax.tree_util.keystr(jax.tree.flatten_with_path(tree, is_leaf=is_none)[0][i][0])


def align(
    treedef: PyTreeDef, tree: PyTree, name: str, like: PyTree, like_name: str = "updates"
) -> list[PyTree]:
    """Returns the parts of `tree` at the leaves of `treedef`, the structure of `like`.

    Args:
      treedef: the structure of `like`, with `None` as a leaf.
      tree: the pytree whose parts are returned.
      name: the name of `tree` in error messages.
      like: the pytree whose structure `tree` must have.
      like_name: the name of `like` in error messages. Default: "updates".

    Raises:
      StructureError: the structures differ; the message names the paths that only one of them has.
    """
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StructureError(describe_difference(like_name, like, name, tree)) from None
