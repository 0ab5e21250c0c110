"""Arithmetic leaf by leaf.

Dtypes are promoted, and shapes broadcast, as in `jax.numpy`. For half-precision leaves, functions
of more than one operation are computed in float32 and rounded once. `None` leaves stay `None`.
"""

import functools
import operator

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.tree.mapping import PAIR, map_leaves, rounded_once


def add(tree_x: PyTree, tree_y: PyTree, *other_trees: PyTree) -> PyTree:
    """Adds pytrees leaf by leaf: `tree_x + tree_y + ...`.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.
      *other_trees: more pytrees of the same structure.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> from gradtx import tree
      >>> tree.add({"a": 1.0}, {"a": 2.0}, {"a": 3.0})
      {'a': 6.0}
    """
    if not other_trees:
        return map_leaves("tree.add", operator.add, tree_x, tree_y)
    names = (*PAIR, *(f"other_trees[{i}]" for i in range(len(other_trees))))

    def add_all(*xs: ArrayLike) -> ArrayLike:
        return rounded_once(lambda *xs: functools.reduce(operator.add, xs), *xs)

    return map_leaves("tree.add", add_all, tree_x, tree_y, *other_trees, names=names)


def sub(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """Subtracts pytrees leaf by leaf: `tree_x - tree_y`.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> from gradtx import tree
      >>> tree.sub({"a": 3.0}, {"a": 2.0})
      {'a': 1.0}
    """
    return map_leaves("tree.sub", operator.sub, tree_x, tree_y)


def mul(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """Multiplies pytrees leaf by leaf: `tree_x * tree_y`.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> from gradtx import tree
      >>> tree.mul({"a": 3.0}, {"a": 2.0})
      {'a': 6.0}
    """
    return map_leaves("tree.mul", operator.mul, tree_x, tree_y)


def div(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """Divides pytrees leaf by leaf: `tree_x / tree_y`.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> from gradtx import tree
      >>> tree.div({"a": 3.0}, {"a": 2.0})
      {'a': 1.5}
    """
    return map_leaves("tree.div", operator.truediv, tree_x, tree_y)


def scale(scalar: Scalar, tree: PyTree) -> PyTree:
    """Multiplies every leaf by a number: `scalar * tree`.

    Args:
      scalar: a number or a scalar array. An array is promoted with the leaves as in `jax.numpy`: a
        float32 scalar times a bfloat16 leaf is float32. Python numbers don't change the dtype.
      tree: a pytree of arrays.

    Example:
      >>> from gradtx import tree
      >>> tree.scale(2.0, {"a": 3.0})
      {'a': 6.0}
    """

    def times(x: ArrayLike) -> ArrayLike:
        return rounded_once(operator.mul, scalar, x)

    return map_leaves("tree.scale", times, tree, names=("tree",))


def add_scale(tree_x: PyTree, scalar: Scalar, tree_y: PyTree) -> PyTree:
    """Adds a multiple of one pytree to another: `tree_x + scalar * tree_y`.

    Args:
      tree_x: a pytree of arrays; where it is `None`, the result is `None`.
      scalar: a number or a scalar array.
      tree_y: a pytree of the same structure as `tree_x`.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> from gradtx import tree
      >>> tree.add_scale({"a": 1.0}, 2.0, {"a": 3.0})
      {'a': 7.0}
    """

    def combine(x: ArrayLike, y: ArrayLike) -> ArrayLike:
        return rounded_once(lambda x, s, y: x + s * y, x, scalar, y)

    return map_leaves("tree.add_scale", combine, tree_x, tree_y, none_wins=True)


def clip(
    tree: PyTree, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None
) -> PyTree:
    """Clips every element to a range: `min(max(tree, min_value), max_value)`.

    Args:
      tree: a pytree of real arrays.
      min_value: the lower bound, a number or an array that broadcasts to every leaf. Default:
        `None`, no bound.
      max_value: the upper bound, likewise. Default: `None`, no bound.

    Example:
      >>> from gradtx import tree
      >>> print(tree.clip({"a": 3.0}, max_value=2.0))
      {'a': Array(2., dtype=float32, weak_type=True)}
    """

    def limit(x: ArrayLike) -> Array:
        return jnp.clip(x, min=min_value, max=max_value)

    return map_leaves("tree.clip", limit, tree, names=("tree",))


def where(condition: ArrayLike, tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """Selects elements of `tree_x` where a condition holds, and of `tree_y` elsewhere.

    Args:
      condition: a boolean, or an array of booleans that broadcasts to every leaf.
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> from gradtx import tree
      >>> print(tree.where(True, {"a": 1.0}, {"a": 2.0})["a"])
      1.0
    """
    return map_leaves("tree.where", lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def conj(tree: PyTree) -> PyTree:
    """Returns the complex conjugate of every leaf; real leaves don't change.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> from gradtx import tree
      >>> print(tree.conj({"a": 1 + 2j})["a"])
      (1-2j)
    """
    return map_leaves("tree.conj", jnp.conj, tree, names=("tree",))


def real(tree: PyTree) -> PyTree:
    """Returns the real part of every leaf.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> from gradtx import tree
      >>> print(tree.real({"a": 1 + 2j})["a"])
      1.0
    """
    return map_leaves("tree.real", jnp.real, tree, names=("tree",))
