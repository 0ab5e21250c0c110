"""Applying a function of arrays to the leaves of pytrees, with errors that name the leaf."""

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx._arguments import described
from gradtx.codecs import decoded
from gradtx.engine.base import PyTree
from gradtx.engine.numerics import compute_dtype, widen
from gradtx.engine.paths import StructureError, align, describe_difference, is_none, nth_path

PAIR = ("tree_x", "tree_y")


def map_leaves(
    where: str,
    f: Callable[..., PyTree],
    *trees: PyTree,
    names: tuple[str, ...] = PAIR,
    none_wins: bool = False,
) -> PyTree:
    """Applies a function to corresponding leaves of several pytrees.

    Arrays that are stored as codes are decoded.

    Args:
      where: the name of the calling function in error messages.
      f: a function of one leaf of each pytree.
      *trees: pytrees of the same structure, which is that of the result. A leaf that is `None` must
        be `None` in all of them.
      names: the names of the pytrees in error messages.
      none_wins: whether the result is `None` if only the first pytree is `None`. Default: False.

    Raises:
      StructureError: the structures differ.
      TypeError, ValueError: `f` raised it; the leaf's path is added.
    """
    trees = tuple(map(decoded, trees))
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
            # a leaf of the first tree corresponds to a whole subtree, or to nothing
            if not jax.tree_util.all_leaves([x]):
                odd, odd_tree = (names[1], trees[1]) if xs[0] is None else (name, tree)
                told = describe_difference(names[0], first, odd, odd_tree)
                raise StructureError(f"{where}: {told}")
        with errors_at(where, lambda i=i: f"{names[0]}{nth_path(first, i)}"):
            results.append(f(*xs))
    return treedef.unflatten(results)


@contextlib.contextmanager
def errors_at(where: str, leaf: Callable[[], str]) -> Iterator[None]:
    """Adds the name of a leaf to the errors that are raised in a `with` statement.

    Args:
      where: the name of the calling function.
      leaf: a function that returns the name of the leaf.

    Raises:
      TypeError, ValueError: the same kind of error, with the names.
    """
    try:
        yield
    except (TypeError, ValueError) as e:
        if type(e) not in (TypeError, ValueError):  # subclasses of JAX are raised as they are
            raise
        raise type(e)(f"{where}: at {leaf()}: {e}") from e


def numbers_in(where: str, tree: PyTree, name: str = "tree") -> list[ArrayLike]:
    """Returns the leaves of a pytree, all of which are numbers; codes are decoded.

    Args:
      where: the name of the calling function in error messages.
      tree: the pytree.
      name: its name in error messages. Default: "tree".

    Raises:
      TypeError: a leaf is no number, such as a random key or a string.
    """
    leaves = jax.tree.leaves(tree := decoded(tree))
    good: set[Hashable] = set()  # the dtypes and types checked so far: there are few
    for i, x in enumerate(leaves):
        kind = getattr(x, "dtype", type(x))
        if kind in good:
            continue
        if not (_is_number(kind) or hasattr(x, "__jax_array__")):
            path = jax.tree_util.keystr(jax.tree.leaves_with_path(tree)[i][0])
            is_key = kind is not type(x) and jnp.issubdtype(kind, jax.dtypes.prng_key)
            told = "a random key" if is_key else described(x)
            raise TypeError(f"{where}: {name}{path} is {told}, not a number; leave it out")
        good.add(kind)
    return leaves


def _is_number(kind: Any) -> bool:
    if isinstance(kind, type):
        return issubclass(kind, (int, float, complex))
    return jnp.issubdtype(kind, np.number) or jnp.issubdtype(kind, np.bool_)


def rounded_once(f: Callable[..., ArrayLike], *xs: ArrayLike) -> ArrayLike:
    """Returns `f(*xs)` in the promoted dtype of its arguments, computed in float32 or wider.

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
