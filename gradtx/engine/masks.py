"""Masks, which are pytrees of booleans, and pytrees with masked leaves."""

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._arguments import described
from gradtx.engine.base import ExtraArgs, MaskOrFn, Params, PyTree, Updates, for_tree
from gradtx.engine.paths import StructureError, align, is_none, nth_path
from gradtx.engine.rules import MaskedNode


class Mask(NamedTuple):
    """The mask of a link.

    Attributes:
      tree: a pytree of booleans, or a function that returns one for a tree like the parameters.
      all_trees: whether extra arguments that are pytrees like the updates are masked too.
      label: the label of a partition to which the mask belongs, or `None`.
      name: the name of the wrapper or optimizer of which it is an argument, for error messages.
    """

    tree: MaskOrFn
    all_trees: bool = False
    label: Hashable = None
    name: str = ""


def flags(mask: MaskOrFn, tree: PyTree, tree_name: str) -> list[bool]:
    """Returns the boolean of a mask for each leaf of a pytree.

    Args:
      mask: a pytree of booleans, like `tree` or a prefix of it, or a function that returns one.
      tree: the tree to be masked.
      tree_name: its name in error messages.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    whole = spread(for_tree(mask, tree, "a mask"), tree)
    found = align(treedef, whole, "the mask", tree, tree_name)
    for i, (flag, leaf) in enumerate(zip(found, leaves, strict=True)):
        if leaf is not None and not _is_boolean(flag):
            given = f"the mask must be a boolean for {tree_name}{nth_path(tree, i)}, got "
            raise StructureError(given + described(flag))
    return [bool(flag) for flag in found]


def _is_boolean(x: PyTree) -> bool:
    is_array = hasattr(x, "dtype") and x.shape == ()
    return isinstance(x, bool) or (is_array and jnp.issubdtype(x.dtype, jnp.bool_))


def spread(prefix: PyTree, tree: PyTree, is_leaf: Callable[[PyTree], bool] = is_none) -> PyTree:
    """Broadcasts a prefix of `tree` to the structure of `tree`.

    Args:
      prefix: a pytree whose leaves apply to whole subtrees of `tree`.
      tree: the tree.
      is_leaf: a function that returns whether a node of `prefix` is a leaf. Default: `None` is one.
    """

    if jax.tree.structure(prefix, is_leaf) == jax.tree.structure(tree, is_none):
        return prefix

    def repeated(leaf: PyTree, subtree: PyTree) -> PyTree:
        return jax.tree.map(lambda _: leaf, subtree, is_leaf=is_none)

    try:
        return jax.tree.map(repeated, prefix, tree, is_leaf=is_leaf)
    except (ValueError, TypeError):
        return prefix  # `align` reports the difference


def narrowed(
    masks: Sequence[Mask], tree: PyTree, tree_name: str, whole: bool
) -> Iterator[tuple[Mask, PyTree, list[bool], list[bool]]]:
    """Applies nested masks from the outermost one.

    Yields for each mask: the mask, the pytree that it sees, and for every leaf, whether that
    pytree has it, and whether it remains after the mask.

    Args:
      masks: `Mask`s, the innermost first.
      tree: the tree to be masked.
      tree_name: its name in error messages.
      whole: whether each mask sees the whole pytree, not only the leaves that the masks around it
        keep.
    """
    leaves = jax.tree.leaves(tree, is_leaf=is_none)
    active = [True] * len(leaves)
    for mask in reversed(masks):
        there = [True] * len(active) if whole else active
        seen = tree if whole else hide(tree, active)
        try:
            found = iter(flags(mask.tree, seen, tree_name))
        except StructureError as e:
            e.owner = e.owner or mask.name
            raise
        # masked leaves are not among those found, but each `None` is
        asked = [whole or a or x is None for a, x in zip(active, leaves, strict=True)]
        active = [q and next(found) and a for q, a in zip(asked, active, strict=True)]
        yield mask, seen, there, active


def filled(updates: Updates, params: Params | None) -> PyTree:
    """Returns updates with parameters in place of missing ones, for masks that depend on shapes.

    Args:
      updates: the updates; with another structure than the parameters they are returned as they
        are.
      params: the parameters, or `None`.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    if params is None or all(x is not None for x in leaves):
        return updates
    others, structure = jax.tree.flatten(params, is_leaf=is_none)
    if structure != treedef:
        return updates
    return treedef.unflatten(p if x is None else x for x, p in zip(leaves, others, strict=True))


def hide(tree: PyTree, keep: Sequence[bool], params: Params | None = None) -> PyTree:
    """Replaces the leaves that are not kept by `MaskedNode()`, which has no leaves.

    A leaf is not replaced if it is `None` in the parameters, or in the tree if these are not given.

    Args:
      tree: the tree.
      keep: for each leaf, whether it is kept.
      params: the parameters of which the tree has the gradients. Default: `None`, unknown.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    own = leaves if params is None else align(treedef, params, "params", tree)
    return treedef.unflatten(
        leaf if k or p is None else MaskedNode()
        for leaf, k, p in zip(leaves, keep, own, strict=True)
    )


def merge(whole: PyTree, part: PyTree) -> PyTree:
    """Returns `part`, with the leaves of `whole` in place of those that are masked."""
    leaves, treedef = jax.tree.flatten(whole, is_leaf=is_none)
    pairs = zip(leaves, treedef.flatten_up_to(part), strict=True)
    return treedef.unflatten([old if isinstance(n, MaskedNode) else n for old, n in pairs])


def hide_extra(
    extra: ExtraArgs, updates: Updates, params: Params, keep: Sequence[bool], all_trees: bool
) -> ExtraArgs:
    """Masks the gradient and the functions of the parameters among the extra arguments.

    The gradient is `grad`. Functions of the parameters become functions of the leaves that are
    kept. With `all_trees`, all pytrees like the updates are masked.

    Args:
      extra: the extra arguments.
      updates: the whole updates.
      params: the whole parameters, or `None`.
      keep: for each leaf, whether it is kept.
      all_trees: whether every argument that is a pytree like the updates is masked.
    """
    treedef, found = jax.tree.structure(updates, is_leaf=is_none), dict(extra)
    for name, value in extra.items():
        is_like = jax.tree.structure(value, is_leaf=is_none) == treedef
        if is_like and (all_trees or name == "grad"):
            found[name] = hide(value, keep, params)
        elif name in ("value_fn", "obj_fn") and value is not None and params is not None:
            found[name] = _of_kept(value, params)
        elif name == "grad_fn" and value is not None and params is not None:
            found[name] = _of_kept(value, params, lambda g: hide(g, keep, params))
    return found


def _of_kept(
    function: Callable[..., PyTree], params: Params, after: Callable[[PyTree], PyTree] = lambda x: x
) -> Callable[..., PyTree]:
    """Returns a function of all parameters as a function of those kept, with the others fixed."""

    @functools.wraps(function)
    def of_part(part: Params, *args: Any, **kwargs: Any) -> PyTree:
        return after(function(merge(params, part), *args, **kwargs))

    return of_part
