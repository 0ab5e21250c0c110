"""Arithmetic on pytrees.

Sums and norms over half-precision leaves are taken in float32. `None` leaves stay `None`.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.base import Array
from gradtx.numerics import abs_sq, safe_sqrt, widen


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """Adds trees leaf by leaf.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.
      *other_trees: more of them.

    Example:
      >>> from gradtx import tree
      >>> tree.add({"a": 1.0}, {"a": 2.0}, {"a": 3.0})
      {'a': 6.0}
    """
    return jax.tree.map(
        lambda *xs: functools.reduce(operator.add, xs), tree_x, tree_y, *other_trees
    )


def sub(tree_x: Any, tree_y: Any) -> Any:
    """Subtracts trees leaf by leaf: `tree_x - tree_y`.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.

    Example:
      >>> from gradtx import tree
      >>> tree.sub({"a": 3.0}, {"a": 2.0})
      {'a': 1.0}
    """
    return jax.tree.map(operator.sub, tree_x, tree_y)


def mul(tree_x: Any, tree_y: Any) -> Any:
    """Multiplies trees leaf by leaf.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.

    Example:
      >>> from gradtx import tree
      >>> tree.mul({"a": 3.0}, {"a": 2.0})
      {'a': 6.0}
    """
    return jax.tree.map(operator.mul, tree_x, tree_y)


def div(tree_x: Any, tree_y: Any) -> Any:
    """Divides trees leaf by leaf: `tree_x / tree_y`.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.

    Example:
      >>> from gradtx import tree
      >>> tree.div({"a": 3.0}, {"a": 2.0})
      {'a': 1.5}
    """
    return jax.tree.map(operator.truediv, tree_x, tree_y)


def scale(scalar: Any, tree: Any) -> Any:
    """Multiplies every leaf by a number.

    Args:
      scalar: a number or a scalar array.
      tree: a pytree of arrays.

    Example:
      >>> from gradtx import tree
      >>> tree.scale(2.0, {"a": 3.0})
      {'a': 6.0}
    """
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: Any, scalar: Any, tree_y: Any) -> Any:
    """Adds a multiple of one tree to another: `tree_x + scalar * tree_y`.

    Args:
      tree_x: a pytree of arrays.
      scalar: a number or a scalar array.
      tree_y: a pytree of the same structure as `tree_x`.

    Example:
      >>> from gradtx import tree
      >>> tree.add_scale({"a": 1.0}, 2.0, {"a": 3.0})
      {'a': 7.0}
    """
    return jax.tree.map(lambda x, y: x + scalar * y, tree_x, tree_y)


def zeros_like(tree: Any, dtype: Any | None = None) -> Any:
    """Makes a tree of zeros.

    Args:
      tree: a pytree of arrays, whose shapes are taken.
      dtype: the dtype of the zeros. Default: each leaf's own.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.zeros_like({"a": jax.numpy.ones(2)})["a"].tolist()
      [0.0, 0.0]
    """
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype), tree)


def cast(tree: Any, dtype: Any | None) -> Any:
    """Casts every leaf.

    Args:
      tree: a pytree of arrays.
      dtype: the dtype wanted, or `None` to leave the tree as it is.

    Example:
      >>> from gradtx import tree
      >>> tree.cast({"a": 1.0}, "bfloat16")["a"].dtype
      dtype(bfloat16)
    """
    return tree if dtype is None else jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def sum(tree: Any) -> Array:
    """Adds up all elements of all leaves; half precision is added in float32.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.sum({"a": jax.numpy.ones(2), "b": 1.0}).item()
      3.0
    """
    return functools.reduce(operator.add, [jnp.sum(widen(x)) for x in jax.tree.leaves(tree)], 0.0)  # type: ignore[return-value]


def vdot(tree_x: Any, tree_y: Any) -> Array:
    """Gives the inner product of two trees, conjugating the first.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.vdot({"a": jax.numpy.ones(2)}, {"a": jax.numpy.ones(2)}).item()
      2.0
    """
    return sum(jax.tree.map(lambda x, y: jnp.vdot(widen(x), widen(y)), tree_x, tree_y))


def norm(tree: Any) -> Array:
    """Gives the Euclidean norm of all leaves together, a float32 (or wider) scalar.

    Its gradient at zero is zero.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.tree.norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
      5.0
    """
    return safe_sqrt(jnp.asarray(sum(jax.tree.map(lambda x: abs_sq(widen(x)), tree))))


def size(tree: Any) -> int:
    """Counts the elements of all leaves.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.size({"a": jax.numpy.ones((2, 3)), "b": 1.0})
      7
    """
    return int(functools.reduce(operator.add, [jnp.size(x) for x in jax.tree.leaves(tree)], 0))
