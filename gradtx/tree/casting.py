"""Dtypes of the leaves."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.numerics import default_float
from gradtx.tree.mapping import map_leaves


def cast(tree: Any, dtype: Any | None) -> Any:
    """Casts every leaf.

    Args:
      tree: a pytree of arrays.
      dtype: the dtype wanted, or `None` to leave the tree as it is.

    Raises:
      TypeError: a leaf is complex and `dtype` is not; take `tree.real` first.

    Example:
      >>> from gradtx import tree
      >>> tree.cast({"a": 1.0}, "bfloat16")["a"].dtype
      dtype(bfloat16)
    """
    if dtype is None:
        return tree
    return map_leaves("tree.cast", lambda x: _cast(x, dtype), tree, names=("tree",))


def cast_like(tree: Any, other_tree: Any) -> Any:
    """Casts every leaf to the dtype of another tree's leaf.

    Args:
      tree: a pytree of arrays.
      other_tree: a pytree of the same structure, whose dtypes are taken. A leaf that is `None` in
        either tree stays as it is.

    Raises:
      ValueError: the structures differ; the message names the paths.
      TypeError: a leaf is complex and the other is not; take `tree.real` first.

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
    """A dtype, or none, as a leaf."""

    def __init__(self, dtype: Any):
        self.dtype = dtype


def _cast_to(x: Any, wanted: _Dtype) -> Any:
    return x if wanted.dtype is None else _cast(x, wanted.dtype)


def _cast(x: Any, dtype: Any) -> Any:
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"this is {jnp.result_type(x)}, and {jnp.dtype(dtype)} cannot hold it")
    return jnp.asarray(x, dtype)


def dtype(tree: Any, mixed_dtype_handler: str | None = None) -> Any:
    """Gives the dtype of the leaves.

    Args:
      tree: a pytree of arrays. An empty one has the dtype of a Python float.
      mixed_dtype_handler: what to do when leaves differ. `"promote"` gives the dtype of their sum;
        `"highest"` and `"lowest"` give the one that all others promote to, and the one that
        promotes to all others. Default: `None`, an error.

    Raises:
      ValueError: the leaves differ and nothing says what to do, or neither of two dtypes promotes
        to the other (such as bfloat16 and float16), or the handler is unknown.

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
            f"tree.dtype: mixed_dtype_handler is {mixed_dtype_handler!r}, not one of {handlers}"
        )
    found = {}  # from each dtype to the path where it was met first
    for path, leaf in jax.tree.leaves_with_path(tree):
        found.setdefault(jnp.result_type(leaf), "tree" + jax.tree_util.keystr(path))
    if not found:
        return jnp.dtype(default_float())
    if len(found) > 1 and mixed_dtype_handler is None:
        told = ", ".join(f"{path} is {d}" for d, path in found.items())
        raise ValueError(f"tree.dtype: the leaves differ: {told}")
    if mixed_dtype_handler == "promote":
        return functools.reduce(jnp.promote_types, found)

    def pick(a: Any, b: Any) -> Any:
        both = jnp.promote_types(a, b)
        if both not in (a, b):
            raise ValueError(
                f"tree.dtype: neither of {a} ({found[a]}) and {b} ({found[b]}) promotes to the "
                f"other, so that none is the {mixed_dtype_handler}"
            )
        return both if mixed_dtype_handler == "highest" else (b if both == a else a)

    return functools.reduce(pick, found)
