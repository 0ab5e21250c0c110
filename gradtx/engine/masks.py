"""Trees of booleans that say which leaves take part, and trees with holes where leaves do not."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import is_function
from gradtx.engine.paths import StructureError, align, is_none, nth_path
from gradtx.engine.rules import MaskedNode


def flags(mask: Any, tree: Any, tree_name: str) -> list[bool]:
    """Returns a mask's boolean for each leaf of a tree.

    Args:
      mask: a tree of booleans, like `tree` or a prefix of it, or a function that makes one.
      tree: the tree to be masked.
      tree_name: what an error calls it.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    whole = spread(mask(tree) if is_function(mask) else mask, tree)
    found = align(treedef, whole, "the mask", tree, tree_name)
    for i, (flag, leaf) in enumerate(zip(found, leaves, strict=True)):
        if leaf is not None and not _is_boolean(flag):
            path = nth_path(tree, i)
            raise StructureError(f"the mask{path} is {flag!r} for {tree_name}{path}, not a boolean")
    return [bool(flag) for flag in found]


def _is_boolean(x: Any) -> bool:
    return isinstance(x, bool) or (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.bool_))


def spread(prefix: Any, tree: Any, is_leaf: Callable[[Any], bool] = is_none) -> Any:
    """Repeats the leaves of a prefix of `tree` until it has `tree`'s structure.

    Args:
      prefix: a tree whose leaves stand for whole branches of `tree`.
      tree: the tree.
      is_leaf: whether a node of `prefix` is a leaf. Default: `None` is one.
    """
    try:
        return jax.tree.map(
            lambda m, below: jax.tree.map(lambda _: m, below, is_leaf=is_none),
            prefix,
            tree,
            is_leaf=is_leaf,
        )
    except (ValueError, TypeError):
        return prefix  # `align` says what differs


def narrowed(
    masks: Sequence[Any], tree: Any, tree_name: str, whole: bool
) -> Iterator[tuple[Any, Any, list[bool], list[bool]]]:
    """Goes through masks from the outermost one.

    Yields each mask, the tree that it sees, which of the leaves that tree has, and which are left.

    Args:
      masks: `Mask`s, the innermost first.
      tree: the tree to be masked.
      tree_name: what an error calls it.
      whole: whether each sees the whole tree, or what those around it leave.
    """
    active = [True] * len(jax.tree.leaves(tree, is_leaf=is_none))
    for mask in reversed(masks):
        there = [True] * len(active) if whole else active
        seen = tree if whole else hide(tree, active)
        found = iter(flags(mask.tree, seen, tree_name))
        if whole:
            active = [a and f for a, f in zip(active, found, strict=True)]
        else:  # what is hidden has no leaf
            active = [a and next(found) for a in active]
        yield mask, seen, there, active


def hide(tree: Any, keep: Sequence[bool]) -> Any:
    """Puts `MaskedNode()`, which has no leaves, in the place of the leaves not to be seen."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    return treedef.unflatten(
        leaf if k or leaf is None else MaskedNode() for leaf, k in zip(leaves, keep, strict=True)
    )


def merge(whole: Any, part: Any) -> Any:
    """Fills the places of a tree that are masked with the leaves of the whole one."""
    leaves, treedef = jax.tree.flatten(whole, is_leaf=is_none)
    pairs = zip(leaves, treedef.flatten_up_to(part), strict=True)
    return treedef.unflatten([old if isinstance(n, MaskedNode) else n for old, n in pairs])


def hide_extra(
    extra: dict[str, Any], updates: Any, params: Any, keep: Sequence[bool], all_trees: bool
) -> dict[str, Any]:
    """Masks the extra arguments that belong to the leaves, or measure the loss along them.

    The gradient is a tree like the updates by its meaning, and what measures the loss moves only
    the leaves that it sees.

    Args:
      extra: the extra arguments.
      updates: the whole updates.
      params: the whole parameters, or `None`.
      keep: for each leaf, whether it is seen.
      all_trees: whether every argument that is a tree like the updates is masked.
    """
    treedef, found = jax.tree.structure(updates, is_leaf=is_none), dict(extra)
    for name, value in extra.items():
        is_like = jax.tree.structure(value, is_leaf=is_none) == treedef
        if is_like and (all_trees or name == "grad"):
            found[name] = hide(value, keep)
        elif name in ("value_fn", "obj_fn") and value is not None and params is not None:
            found[name] = _with_the_others(value, params)
        elif name == "grad_fn" and value is not None and params is not None:
            found[name] = _of_the_seen(_with_the_others(value, params), keep)
    return found


def _with_the_others(value_fn: Callable[..., Any], params: Any) -> Callable[..., Any]:
    """Makes a loss of all parameters one of those that are not masked; the others stand still."""

    @functools.wraps(value_fn)
    def of_part(part: Any, *args: Any, **kwargs: Any) -> Any:
        return value_fn(merge(params, part), *args, **kwargs)

    return of_part


def _of_the_seen(grad_fn: Callable[..., Any], keep: Sequence[bool]) -> Callable[..., Any]:
    """Makes the gradient of all parameters that of those that are not masked."""

    @functools.wraps(grad_fn)
    def of_part(part: Any, *args: Any, **kwargs: Any) -> Any:
        return hide(grad_fn(part, *args, **kwargs), keep)

    return of_part
