"""Reductions of a pytree to a number.

Sums and norms of half-precision leaves are computed and returned in float32, so that sums over many
bfloat16 leaves keep their accuracy, and norms of large float16 leaves don't overflow. Extrema keep
their dtype. Arrays that are stored as codes are decoded.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.codecs import decoded, is_coded
from gradtx.engine.base import Array, PyTree
from gradtx.engine.numerics import abs_sq, widen
from gradtx.engine.scalars import finished, total
from gradtx.tree.mapping import map_leaves, numbers_in
from gradtx.tree.norms import floating, global_norm, safe_sqrt


def sum(tree: PyTree, associative_reduction: bool = False) -> Array:
    """Returns the sum of all elements of all leaves; 0 for an empty pytree.

    Args:
      tree: a pytree of arrays.
      associative_reduction: whether the leaves' sums are added pairwise, in a balanced tree of
        additions, which has smaller rounding errors. Default: False.

    Raises:
      TypeError: a leaf is no number, such as a random key; the message has its path.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.sum({"a": jax.numpy.ones(2), "b": 1.0}).item()
      3.0
    """
    sums = [jnp.sum(widen(x)) for x in numbers_in("tree.sum", tree)]
    if not sums:
        return jnp.asarray(0.0)
    if len(sums) == 1:
        return sums[0]
    if associative_reduction:
        return finished(jax.tree.reduce_associative(jnp.add, sums))
    return total(sums)


def max(tree: PyTree) -> Array:
    """Returns the largest element of all leaves; `-inf` if there are no elements.

    Args:
      tree: a pytree of arrays.

    Raises:
      TypeError: a leaf is no number, such as a random key; the message has its path.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.max({"a": jax.numpy.arange(3.0), "b": 1.0}).item()
      2.0
    """
    parts = [jnp.max(x) for x in numbers_in("tree.max", tree) if jnp.size(x)]
    return finished(functools.reduce(jnp.maximum, parts)) if parts else jnp.asarray(-jnp.inf)


def min(tree: PyTree) -> Array:
    """Returns the smallest element of all leaves; `inf` if there are no elements.

    Args:
      tree: a pytree of arrays.

    Raises:
      TypeError: a leaf is no number, such as a random key; the message has its path.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.min({"a": jax.numpy.arange(3.0), "b": 1.0}).item()
      0.0
    """
    parts = [jnp.min(x) for x in numbers_in("tree.min", tree) if jnp.size(x)]
    return finished(functools.reduce(jnp.minimum, parts)) if parts else jnp.asarray(jnp.inf)


def vdot(tree_x: PyTree, tree_y: PyTree) -> Array:
    """Returns the inner product of two pytrees: the sum of `conj(tree_x) * tree_y`.

    Args:
      tree_x: a pytree of arrays.
      tree_y: a pytree of the same structure and shapes.

    Raises:
      ValueError: structures or shapes differ; the message names the paths.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.vdot({"a": jax.numpy.ones(2)}, {"a": jax.numpy.ones(2)}).item()
      2.0
    """
    return sum(map_leaves("tree.vdot", _vdot, decoded(tree_x), decoded(tree_y)))


def _vdot(x: ArrayLike, y: ArrayLike) -> Array:
    if jnp.shape(x) != jnp.shape(y):
        raise ValueError(f"the shapes must be equal, got {jnp.shape(x)} and {jnp.shape(y)}")
    # Not `jnp.vdot`: it flattens arrays, which explicitly sharded ones do not allow, and a matrix
    # unit would round the factors.
    return jnp.sum(jnp.conj(widen(x)) * widen(y))


def norm(tree: PyTree, ord: float | str | None = None, squared: bool = False) -> Array:
    """Returns the norm of all leaves together, as if they were one vector.

    `(sum |x|**ord)**(1/ord)`, or the largest `|x|` for infinity: a real scalar, float32 or wider.
    Its gradient at zero is zero. The norm of an empty pytree is 0.

    Args:
      tree: a pytree of real or complex arrays.
      ord: 1, 2 or infinity (`jnp.inf`, `"inf"` or `"infinity"`). Default: `None`, which is 2.
      squared: whether to return the square of the norm. Default: False.

    Raises:
      ValueError: `ord` has another value.
      TypeError: a leaf is no number, such as a random key; the message has its path.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.tree.norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
      5.0
    """
    leaves = numbers_in("tree.norm", tree)
    if ord is None or ord == 2:
        if squared:
            return sum([abs_sq(floating(x)) for x in leaves])
        return global_norm(leaves)
    if ord == 1:
        result = sum([_magnitude(x) for x in leaves])
    elif ord in (np.inf, "inf", "infinity"):
        parts = [jnp.max(_magnitude(x), initial=0) for x in leaves]
        result = finished(functools.reduce(jnp.maximum, parts, jnp.asarray(0.0)))
    else:
        raise ValueError(
            f"tree.norm: ord must be one of None, 1, 2, inf, 'inf', 'infinity', got {ord!r}"
        )
    return jnp.square(result) if squared else result


def _magnitude(x: ArrayLike) -> Array:
    x = floating(x)
    return safe_sqrt(abs_sq(x)) if jnp.iscomplexobj(x) else jnp.abs(x)


def size(tree: PyTree) -> int:
    """Returns the number of elements of all leaves.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.size({"a": jax.numpy.ones((2, 3)), "b": 1.0})
      7
    """
    return functools.reduce(
        operator.add, [int(jnp.size(x)) for x in jax.tree.leaves(tree, is_leaf=is_coded)], 0
    )


def allclose(
    a: PyTree, b: PyTree, rtol: ArrayLike = 1e-5, atol: ArrayLike = 1e-8, equal_nan: bool = False
) -> Array:
    """Returns whether two pytrees are close: `|a - b| <= atol + rtol * |b|` for all elements.

    Args:
      a: a pytree of arrays.
      b: a pytree of the same structure.
      rtol: the relative tolerance. Default: 1e-5.
      atol: the absolute tolerance. Default: 1e-8.
      equal_nan: whether NaN equals NaN. Default: False.

    Returns:
      A boolean scalar array.

    Raises:
      ValueError: the structures differ; the message names the paths.
      TypeError: the shapes of two leaves do not broadcast.

    Example:
      >>> from gradtx import tree
      >>> print(tree.allclose({"a": 1.0}, {"a": 1.0 + 1e-7}))
      True
    """

    def close(x: ArrayLike, y: ArrayLike) -> Array:
        return jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)

    verdicts = jax.tree.leaves(map_leaves("tree.allclose", close, a, b, names=("a", "b")))
    return functools.reduce(jnp.logical_and, verdicts, jnp.asarray(True))
