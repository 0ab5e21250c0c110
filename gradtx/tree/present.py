"""The leaves of pytrees that belong to an update which is not `None`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import PyTree, Updates
from gradtx.engine.numerics import compute_dtype, default_float
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import LeafError


def present(updates: Updates, /, **trees: PyTree) -> list[list[PyTree]]:
    """Returns the leaves of several pytrees for which there are updates.

    If an update is `None`, its parameter and slots don't change, and reductions over all leaves
    must not include them either.

    Args:
      updates: the updates.
      **trees: pytrees like the updates, by their names in error messages; their leaves may have one
        additional leading axis.

    Raises:
      ValueError: a pytree has another structure than the updates, or a leaf another shape.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    found = []
    for name, tree in trees.items():
        column = align(treedef, tree, name, updates)
        for i, (u, x) in enumerate(zip(leaves, column, strict=True)):
            if u is None:
                continue
            shape, found_here = jnp.shape(u), "no array"
            if x is not None:
                found_here = f"shape {jnp.shape(x)[jnp.ndim(x) - len(shape) :]}"
            if found_here != f"shape {shape}":
                problem = f"has shape {shape}, but {name} has {found_here}"
                raise LeafError(ValueError, f"updates{nth_path(updates, i)}: {problem}")
        found.append([x for u, x in zip(leaves, column, strict=True) if u is not None])
    return found


def replaced(tree: PyTree, updates: Updates, values: Sequence[PyTree]) -> PyTree:
    """Returns a pytree with new leaves where there are updates, and its own leaves elsewhere.

    Args:
      tree: a tree like the updates.
      updates: the updates.
      values: one leaf for each update that is not `None`.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    old = treedef.flatten_up_to(tree)
    new = iter(values)
    return treedef.unflatten(
        [x if u is None else next(new) for u, x in zip(leaves, old, strict=True)]
    )


def common_dtype(tree: PyTree) -> np.dtype:
    """Returns the real dtype in which scalars of a whole pytree are stored.

    It is the widest real dtype in which arithmetic on one of its leaves is done.

    Args:
      tree: a pytree of arrays.
    """
    found = [compute_dtype(jnp.finfo(jnp.result_type(x)).dtype) for x in jax.tree.leaves(tree)]
    return max(found, key=lambda d: d.itemsize, default=default_float())
