"""Paths of leaves, and descriptions of differences between pytrees."""

from collections.abc import Sequence

import jax

from gradtx.engine.base import PyTree, PyTreeDef


class StructureError(ValueError):
    """An error: two pytrees differ in structure.

    Attributes:
      stages: the first and the last of the links that raised it, among those that run together.
    """

    stages: tuple[int, int] = (0, 0)


def is_none(x: PyTree) -> bool:
    """Returns whether `x` is `None`; used as `is_leaf` to keep `None` as a leaf."""
    return x is None


def nth_path(tree: PyTree, i: int) -> str:
    """Returns the path of the i-th leaf in Python's notation, to be appended to a name."""
    return jax.tree_util.keystr(jax.tree.flatten_with_path(tree, is_leaf=is_none)[0][i][0])


def paths(tree: PyTree) -> list[str]:
    """Returns the paths of all leaves, including `None`."""
    flat, _ = jax.tree.flatten_with_path(tree, is_leaf=is_none)
    return [jax.tree_util.keystr(path) for path, _ in flat]


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


def describe_difference(name_a: str, a: PyTree, name_b: str, b: PyTree) -> str:
    """Returns a sentence on how the structures of two pytrees differ."""
    paths_a, paths_b = paths(a), paths(b)
    only_a = [p for p in paths_a if p not in set(paths_b)]
    only_b = [p for p in paths_b if p not in set(paths_a)]
    told = []
    if only_a:
        told.append(f"only {name_a} has {_some(name_a, only_a)}")
    if only_b:
        told.append(f"only {name_b} has {_some(name_b, only_b)}")
    if not told:
        told.append(f"{name_a} is {jax.tree.structure(a)}, {name_b} is {jax.tree.structure(b)}")
    return f"{name_a} and {name_b} have different structures: {'; '.join(told)}"


def _some(name: str, found: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(f"{name}{p}" for p in found[:most])
    return shown + (f" and {len(found) - most} more" if len(found) > most else "")
