"""Flattening and rebuilding of trees for projections."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from gradtx.engine.base import Array, PyTree, PyTreeDef, Scalar
from gradtx.engine.numerics import compute_dtype, default_float
from gradtx.engine.paths import StructureError, align, is_none, nth_path


def flattened(
    name: str, tree: PyTree, *, role: str = "tree", complex_too: bool = False
) -> tuple[list[Array | None], PyTreeDef]:
    """Returns a tree's leaves as floating arrays in the dtype to compute in, and its structure.

    Args:
      name: the name of the calling function, for errors.
      tree: a pytree of numbers and arrays. `None` leaves stay `None`.
      role: the name of the tree in errors.
      complex_too: whether complex leaves are allowed.

    Raises:
      TypeError: if a leaf is not numeric, or complex where it may not be.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    return [
        None if x is None else _wide(f"{name}: {role}{nth_path(tree, i)}", x, complex_too)
        for i, x in enumerate(leaves)
    ], treedef


def _wide(told: str, x: ArrayLike, complex_too: bool) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.number):
        raise TypeError(f"{told} must be numeric, got dtype {x.dtype}")
    if jnp.iscomplexobj(x) and not complex_too:
        raise TypeError(f"{told} must be real, got dtype {x.dtype}")
    return x.astype(_computed_in(x.dtype))


def _computed_in(dtype: DTypeLike) -> DTypeLike:
    return compute_dtype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else default_float()


def rebuilt(treedef: PyTreeDef, leaves: Sequence[Array | None], like: PyTree) -> PyTree:
    """Rebuilds a tree from leaves, each in the dtype that `like` has there.

    Args:
      treedef: the structure, from `flattened`.
      leaves: the leaves that were computed, `None` included.
      like: the tree that was flattened. Where it has integers, the result has floats.
    """
    originals = jax.tree.leaves(like, is_leaf=is_none)
    return jax.tree.unflatten(
        treedef,
        [
            None if x is None else x.astype(_stored_in(jnp.result_type(old)))
            for x, old in zip(leaves, originals, strict=True)
        ],
    )


def _stored_in(dtype: DTypeLike) -> DTypeLike:
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else default_float()


def aligned(
    name: str,
    other_name: str,
    other: PyTree,
    tree: PyTree,
    treedef: PyTreeDef,
    *,
    role: str = "tree",
) -> list[PyTree]:
    """Returns the leaves of a second tree, in the order of those of the first.

    Args:
      name: the name of the calling function, for errors.
      other_name: the name of the second tree in errors.
      other: the second tree.
      tree: the first tree.
      treedef: its structure, from `flattened`.
      role: the name of the first tree in errors.

    Raises:
      ValueError: if the structures differ.
    """
    try:
        return align(treedef, other, other_name, tree, role)
    except StructureError as error:
        raise StructureError(f"{name}: {error}") from None


def checked_scale(name: str, scale: Scalar) -> Scalar:
    """Returns the size of a set, or raises if it is negative or not a scalar.

    Args:
      name: the name of the calling function, for errors.
      scale: a number, not negative, or a scalar array, whose value is not checked.

    Raises:
      ValueError: if it is negative or not a scalar.
    """
    if isinstance(scale, (int, float)) and not scale >= 0:
        raise ValueError(f"{name}: scale must not be negative, got {scale}")
    if jnp.ndim(scale) != 0:
        raise ValueError(f"{name}: scale must be a scalar, got the shape {jnp.shape(scale)}")
    return scale
