"""Naming leaves, and saying where two trees differ."""

from collections.abc import Sequence
from typing import Any

import jax


class StructureError(ValueError):
    """Two trees that belong together differ in structure.

    Attributes:
      stages: the first and the last of the links that met them, among those that run together.
    """

    stages: tuple[int, int] = (0, 0)


def is_none(x: Any) -> bool:
    """Says whether `x` is `None`; given as `is_leaf`, it keeps the places of `None` leaves."""
    return x is None


def nth_path(tree: Any, i: int) -> str:
    """Gives the path of the i-th leaf, as one would write it after the tree's name."""
    return jax.tree_util.keystr(jax.tree.flatten_with_path(tree, is_leaf=is_none)[0][i][0])


def paths(tree: Any) -> list[str]:
    """Gives the paths of all leaves, `None` included."""
    flat, _ = jax.tree.flatten_with_path(tree, is_leaf=is_none)
    return [jax.tree_util.keystr(path) for path, _ in flat]


def align(treedef: Any, tree: Any, name: str, like: Any, like_name: str = "updates") -> list[Any]:
    """Gives what stands in `tree` at each leaf of `treedef`, the structure of the tree `like`.

    Args:
      treedef: the structure of `like`, with `None` kept as a leaf.
      tree: the tree to read.
      name: what an error calls `tree`.
      like: the tree whose structure is wanted.
      like_name: what an error calls `like`.

    Raises:
      StructureError: the structures differ; the message names the paths that only one of them has.
    """
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StructureError(describe_difference(like_name, like, name, tree)) from None


def describe_difference(name_a: str, a: Any, name_b: str, b: Any) -> str:
    """Says in one sentence how the structures of two trees differ."""
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
