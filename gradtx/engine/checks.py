"""Checks of leaves and arguments, shared by all kinds of links."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._arguments import MEANINGS, described
from gradtx.engine.base import ExtraArgs, Params, PyTree, Updates
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import LeafError


def check_leaf(leaf: PyTree, *, integers: bool = False, real_only: bool = False) -> None:
    """Raises unless a leaf of the parameters or the updates is valid for a link.

    Args:
      leaf: the leaf.
      integers: whether it may be an integer. Default: False.
      real_only: whether it must not be complex. Default: False.

    Raises:
      LeafError: it is not valid.
    """
    if not hasattr(leaf, "dtype") and not isinstance(leaf, (int, float, complex)):
        raise LeafError(
            TypeError,
            f"is {described(leaf)}, not an array; replace it by None or keep it out of the tree",
        )
    dtype = jnp.result_type(leaf)
    if real_only and jnp.issubdtype(dtype, jnp.complexfloating):
        raise LeafError(TypeError, f"is {dtype}, but must be real")
    if not integers and not jnp.issubdtype(dtype, jnp.inexact):
        raise LeafError(
            TypeError,
            f"is {dtype}, but must be floating, because a step would be rounded; "
            "exclude it with gradtx.masked, freeze it with gradtx.partition and "
            "gradtx.set_to_zero, or make it floating",
        )


def check_leaves(
    tree: PyTree,
    name: str,
    active: Sequence[bool] | None = None,
    *,
    leaves: Sequence[PyTree] | None = None,
    integers: bool = False,
    real_only: bool = False,
) -> None:
    """Applies `check_leaf` to the leaves of a pytree; the error names the leaf.

    Args:
      tree: the pytree.
      name: its name in error messages.
      active: which leaves to check. Default: all.
      leaves: the leaves of the pytree, with `None` as a leaf. Default: they are computed.
      integers: whether they may be integers. Default: False.
      real_only: whether they must not be complex. Default: False.

    Raises:
      LeafError: a leaf is not valid.
    """
    if leaves is None:
        leaves = jax.tree.leaves(tree, is_leaf=is_none)
    kinds = [None if x is None else getattr(x, "dtype", type(x)) for x in leaves]
    if active is not None:
        kinds = [kind if mine else None for kind, mine in zip(kinds, active, strict=True)]
    first: dict[object, int] = {}  # of the different dtypes and types: there are few
    for i, kind in enumerate(kinds):
        if kind is not None:  # NumPy holds float64 equal to None
            first.setdefault(kind, i)
    for i in first.values():
        try:
            check_leaf(leaves[i], integers=integers, real_only=real_only)
        except LeafError as e:
            raise e.at(f"{name}{nth_path(tree, i)}") from None


def located(
    error: LeafError, params: Params, leaves: Iterable[int], init: Callable[[int], object]
) -> LeafError:
    """Returns the error of the first leaf for which a rule's `init` raises one, with its path.

    Args:
      error: the error that `init` raised for all leaves, returned if it is that of none.
      params: the pytree of the parameters.
      leaves: the numbers of its leaves that take part.
      init: calls `init` for the leaf of a number.
    """
    for i in leaves:
        try:
            init(i)
        except LeafError as e:
            return e.at(f"params{nth_path(params, i)}")
    return error


def check_pair(g: ArrayLike, p: ArrayLike | None, updates: Updates, i: int) -> None:
    """Raises unless the i-th update can be a step of its parameter.

    Args:
      g: the update.
      p: the parameter.
      updates: the pytree of the updates.
      i: the number of its leaf.

    Raises:
      LeafError: the shapes differ, or the update is complex and the parameter is real.
    """
    if p is None or jnp.shape(p) != jnp.shape(g):
        path = nth_path(updates, i)
        found = "is None" if p is None else f"has shape {jnp.shape(p)}"
        raise LeafError(
            ValueError, f"updates{path} has shape {jnp.shape(g)}, but params{path} {found}"
        )
    if jnp.iscomplexobj(g) and not jnp.iscomplexobj(p):
        path = nth_path(updates, i)
        raise LeafError(
            TypeError,
            f"updates{path} is {jnp.result_type(g)}, but params{path} is {jnp.result_type(p)}",
        )


def check_pairs(updates: Updates, params: Params, active: Sequence[bool] | None = None) -> None:
    """Applies `check_pair` to the leaves of updates and parameters."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    for i, (u, p) in enumerate(zip(leaves, align(treedef, params, "params", updates), strict=True)):
        if u is not None and (active is None or active[i]):
            check_pair(u, p, updates, i)


def check_given(
    needs: Sequence[str], needs_params: bool, params: Params, extra: ExtraArgs, stage: int = 0
) -> None:
    """Raises unless `update` got the arguments that it requires.

    Args:
      needs: the names of the required extra arguments.
      needs_params: whether it needs the parameters.
      params: the parameters, or `None`.
      extra: the extra arguments.
      stage: the number of the link. Default: 0.

    Raises:
      LeafError: an argument is missing, or the loss is not a scalar.
    """
    missing = [n for n in needs if extra.get(n) is None]
    if missing:
        *others, last = [MEANINGS.get(n, n) for n in missing]
        told = f"{', '.join(others)} and {last}" if others else last
        call = ", ".join(f"{n}=..." for n in needs)
        problem = f"needs {told}: call update(updates, state, params, {call})"
        raise LeafError(TypeError, problem, stage)
    if "value" in needs:
        check_value(extra["value"], stage)
    if needs_params and params is None:
        problem = "needs the parameters: call update(updates, state, params)"
        raise LeafError(ValueError, problem, stage)


def check_value(value: ArrayLike, stage: int = 0, name: str = "value") -> None:
    """Raises unless the loss, or another number that `update` got, is a real scalar.

    Args:
      value: the number.
      stage: the number of the link. Default: 0.
      name: the name of the argument. Default: "value".

    Raises:
      LeafError: it is not.
    """
    number = f"give one number, {MEANINGS[name]}"
    if isinstance(value, str) or jnp.issubdtype(jnp.result_type(value), jnp.complexfloating):
        problem = f"{name} must be real, got {described(value)}; {number}"
        raise LeafError(TypeError, problem, stage)
    if shape := jnp.shape(value):
        raise LeafError(ValueError, f"{name} has shape {shape}; {number}", stage)
