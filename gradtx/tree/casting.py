"""Dtypes of the leaves of a pytree."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx.engine.base import Array, PyTree
from gradtx.engine.numerics import default_float
from gradtx.tree.mapping import map_leaves


def cast(tree: PyTree, dtype: DTypeLike | None) -> PyTree:
    """Casts every leaf to a dtype.

    Args:
      tree: a pytree of arrays.
      dtype: the dtype, or `None` to return the pytree unchanged.

    Raises:
      TypeError: a leaf is complex and `dtype` is not; use `tree.real` first.

    Example:
      >>> from gradtx import tree
      >>> tree.cast({"a": 1.0}, "bfloat16")["a"].dtype
      dtype(bfloat16)
    """
    if dtype is None:
        return tree
    return map_leaves("tree.cast", lambda x: _cast(x, dtype), tree, names=("tree",))


def cast_like(tree: PyTree, other_tree: PyTree) -> PyTree:
    """Casts every leaf to the dtype of the corresponding leaf of another pytree.

    Args:
      tree: a pytree of arrays.
      other_tree: a pytree of the same structure, whose dtypes are used. Where either pytree is
        `None`, the leaf is not changed.

    Raises:
      ValueError: the structures differ; the message names the paths.
      TypeError: a leaf is complex and the other is not; use `tree.real` first.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> tree.cast_like({"a": 1.0}, {"a": jnp.zeros(2, "int32")})["a"].dtype
      dtype('int32')
    """
    has_dtype = jax.tree.map(
        lambda x: _Dtype(None if x is None else jnp.result_type(x)),
        other_tree,
        is_leaf=lambda x: x is None,
    )
    names = ("tree", "other_tree")
    return map_leaves("tree.cast_like", _cast_to, tree, has_dtype, names=names, none_wins=True)


class _Dtype:
    """A dtype or `None`, as a leaf."""

    def __init__(self, dtype: DTypeLike | None):
        self.dtype = dtype


def _cast_to(x: ArrayLike, wanted: _Dtype) -> ArrayLike:
    return x if wanted.dtype is None else _cast(x, wanted.dtype)


def _cast(x: ArrayLike, dtype: DTypeLike) -> Array:
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"cannot cast {jnp.result_type(x)} to {jnp.dtype(dtype)}, which is not complex; "
            "take the real part first, with tree.real"
        )
    return jnp.asarray(x, dtype)


def dtype(
    tree: PyTree, mixed_dtype_handler: Literal["promote", "highest", "lowest"] | None = None
) -> np.dtype:
    """Returns the dtype of the leaves.

    Args:
      tree: a pytree of arrays. If it is empty, the result is float32 (float64 in x64 mode).
      mixed_dtype_handler: which dtype to return if the leaves have several: `"promote"` for the
        dtype of their sum, `"highest"` for the dtype to which all others promote, `"lowest"` for
        the dtype that promotes to all others. Default: `None`, an error.

    Raises:
      ValueError: the leaves have several dtypes and `mixed_dtype_handler` is `None`, or neither of
        two dtypes promotes to the other (such as bfloat16 and float16), or the handler is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import tree
      >>> params = {"a": jnp.zeros(2, "bfloat16"), "b": jnp.zeros(2, "float32")}
      >>> tree.dtype(params, "lowest")
      dtype(bfloat16)
    """
    handlers = (None, "promote", "highest", "lowest")
    if mixed_dtype_handler not in handlers:
        raise ValueError(
            f"tree.dtype: mixed_dtype_handler must be one of {handlers}, got "
            f"{mixed_dtype_handler!r}"
        )
    found: dict[np.dtype, str] = {}  # from each dtype to the path of its first leaf
    for path, leaf in jax.tree.leaves_with_path(tree):
        found.setdefault(jnp.result_type(leaf), "tree" + jax.tree_util.keystr(path))
    if not found:
        return jnp.dtype(default_float())
    if len(found) > 1 and mixed_dtype_handler is None:
        told = ", ".join(f"{path} is {d}" for d, path in found.items())
        raise ValueError(
            f"tree.dtype: the leaves must have one dtype without a handler, got {told}"
        )
    if mixed_dtype_handler == "promote":
        return functools.reduce(jnp.promote_types, found)

    def pick(a: np.dtype, b: np.dtype) -> np.dtype:
        both = jnp.promote_types(a, b)
        if both not in (a, b):
            raise ValueError(
                f"tree.dtype: no dtype is the {mixed_dtype_handler}; neither of {a} ({found[a]}) "
                f"and {b} ({found[b]}) promotes to the other"
            )
        return both if mixed_dtype_handler == "highest" else (b if both == a else a)

    return functools.reduce(pick, found)
