"""Calling a function of arrays at the leaves of pytrees, with errors that name the leaf."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.numerics import compute_dtype, widen
from gradtx.engine.paths import StructureError, align, describe_difference, is_none, nth_path

PAIR = ("tree_x", "tree_y")


def map_leaves(
    where: str,
    f: Callable[..., Any],
    *trees: Any,
    names: tuple[str, ...] = PAIR,
    none_wins: bool = False,
) -> Any:
    """Calls a function at the leaves that stand at the same place of several trees.

    Args:
      where: the function that errors name.
      f: a function of one leaf of each tree.
      *trees: pytrees of the same structure, which is the result's structure too. `None` is a place
        without a leaf, and must be `None` in all of them.
      names: what errors call the trees.
      none_wins: whether a `None` in the first tree is enough to give `None`.

    Raises:
      StructureError: the structures differ.
      TypeError, ValueError: what `f` raised, with the leaf's path.
    """
    first = trees[0]
    leaves, treedef = jax.tree.flatten(first, is_leaf=is_none)
    columns = [leaves]
    for name, tree in zip(names[1:], trees[1:], strict=True):
        try:
            columns.append(align(treedef, tree, name, first, names[0]))
        except StructureError as e:
            raise StructureError(f"{where}: {e}") from None
    results = []
    for i, xs in enumerate(zip(*columns, strict=True)):
        if xs[0] is None and (none_wins or all(x is None for x in xs)):
            results.append(None)
            continue
        for name, tree, x in zip(names, trees, xs, strict=True):
            # a leaf of the first tree stands beside a whole subtree, or beside nothing
            if not jax.tree_util.all_leaves([x]):
                odd, odd_tree = (names[1], trees[1]) if xs[0] is None else (name, tree)
                told = describe_difference(names[0], first, odd, odd_tree)
                raise StructureError(f"{where}: {told}")
        try:
            results.append(f(*xs))
        except (TypeError, ValueError) as e:
            if type(e) not in (TypeError, ValueError):  # JAX's own say more by their class
                raise
            raise type(e)(f"{where}: at {names[0]}{nth_path(first, i)}: {e}") from e
    return treedef.unflatten(results)


def rounded_once(f: Callable[..., Any], *xs: Any) -> Any:
    """Gives `f(*xs)` in the dtype that promotion gives, computed in float32 or wider.

    Args:
      f: an arithmetic function of one or more arrays or numbers.
      *xs: its arguments; Python numbers stay exact.
    """
    if not any(hasattr(x, "dtype") for x in xs):
        return f(*xs)
    dtype = jnp.result_type(*xs)
    if compute_dtype(dtype) == dtype:
        return f(*xs)
    return jnp.asarray(f(*(widen(x) if hasattr(x, "dtype") else x for x in xs)), dtype)
