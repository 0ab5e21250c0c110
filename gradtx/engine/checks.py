"""What a leaf may be: one statement for rules, methods on matrices and methods on whole trees."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import LeafError

MEANING = {
    "value": "the loss",
    "grad": "the gradient",
    "value_fn": "the function that gives the loss",
    "obj_fn": "the loss as a function of the parameters",
    "grad_fn": "the function that gives the gradient",
}
"""What extra arguments are."""


def check_leaf(leaf: Any, *, integers: bool = False, real_only: bool = False) -> None:
    """Raises unless a leaf of the parameters or the updates is of a kind that a link can take.

    Args:
      leaf: the leaf.
      integers: whether it may be an integer. Default: no.
      real_only: whether it may not be complex. Default: it may.

    Raises:
      LeafError: it is of another kind.
    """
    if not hasattr(leaf, "dtype") and not isinstance(leaf, (int, float, complex)):
        raise LeafError(
            TypeError,
            f"this is {type(leaf).__name__}, not an array; "
            "replace it by None or keep it out of the tree",
        )
    dtype = jnp.result_type(leaf)
    if real_only and jnp.issubdtype(dtype, jnp.complexfloating):
        raise LeafError(TypeError, f"this is {dtype}, and the rule is for real numbers")
    if not integers and not jnp.issubdtype(dtype, jnp.inexact):
        raise LeafError(
            TypeError,
            f"this is {dtype}, and a step would have to be rounded to be added to it; "
            "keep it out with gradtx.masked, freeze it with gradtx.partition and "
            "gradtx.set_to_zero, or make it floating",
        )


def check_leaves(
    tree: Any,
    name: str,
    active: Sequence[bool] | None = None,
    *,
    integers: bool = False,
    real_only: bool = False,
) -> None:
    """Does what `check_leaf` does for the leaves of a tree, and names the one that is refused.

    Args:
      tree: the tree.
      name: what errors call it.
      active: which leaves take part. Default: all.
      integers: whether they may be integers. Default: no.
      real_only: whether they may not be complex. Default: they may.
    """
    good: set[Any] = set()  # the kinds that were looked at: there are few
    for i, leaf in enumerate(jax.tree.leaves(tree, is_leaf=is_none)):
        if leaf is None or (active is not None and not active[i]):
            continue
        kind = getattr(leaf, "dtype", type(leaf))
        if kind not in good:
            try:
                check_leaf(leaf, integers=integers, real_only=real_only)
            except LeafError as e:
                raise e.at(f"{name}{nth_path(tree, i)}") from None
            good.add(kind)


def check_pair(g: Any, p: Any, updates: Any, i: int) -> None:
    """Raises unless the i-th update can be a step of its parameter.

    Args:
      g: the update.
      p: the parameter.
      updates: the tree of the update.
      i: the number of its leaf.
    """
    if p is None or jnp.shape(p) != jnp.shape(g):
        path = nth_path(updates, i)
        raise LeafError(
            ValueError,
            f"updates{path} has shape {jnp.shape(g)}, params{path} "
            + ("is None" if p is None else f"has shape {jnp.shape(p)}"),
        )
    if jnp.iscomplexobj(g) and not jnp.iscomplexobj(p):
        path = nth_path(updates, i)
        raise LeafError(
            TypeError,
            f"updates{path} is {jnp.result_type(g)}, params{path} is {jnp.result_type(p)}",
        )


def check_pairs(updates: Any, params: Any, active: Sequence[bool] | None = None) -> None:
    """Does what `check_pair` does for the leaves of two trees."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    for i, (u, p) in enumerate(zip(leaves, align(treedef, params, "params", updates), strict=True)):
        if u is not None and (active is None or active[i]):
            check_pair(u, p, updates, i)


def check_given(
    needs: Sequence[str], needs_params: bool, params: Any, extra: Mapping[str, Any], stage: int = 0
) -> None:
    """Raises unless an update was given what it cannot do without.

    Args:
      needs: the names of extra arguments.
      needs_params: whether it needs the parameters.
      params: the parameters, or `None`.
      extra: the extra arguments.
      stage: the number of the link.
    """
    missing = [n for n in needs if extra.get(n) is None]
    if missing:
        told = " and ".join(MEANING.get(n, n) for n in missing)
        call = ", ".join(f"{n}=..." for n in needs)
        raise LeafError(
            TypeError, f"needs {told}: call update(updates, state, params, {call})", stage
        )
    if needs_params and params is None:
        raise LeafError(
            ValueError, "needs the parameters: call update(updates, state, params)", stage
        )
