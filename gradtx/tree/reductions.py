"""From a tree to a number.

Half-precision leaves are summed in float32, and results are float32 or wider: the norm of many
bfloat16 leaves is not lost to rounding, that of large float16 ones does not overflow.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.engine.base import Array
from gradtx.engine.numerics import abs_sq, finished, safe_sqrt, total, widen
from gradtx.tree.mapping import map_leaves
from gradtx.tree.norms import floating, global_norm


def sum(tree: Any, associative_reduction: bool = False) -> Array:
    """Adds up all elements of all leaves; 0 for an empty tree.

    Args:
      tree: a pytree of arrays.
      associative_reduction: whether the leaves' sums are added in pairs, and those in pairs again,
        rather than one after another. The tree of additions is less deep, and rounds less. Default:
        no.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.sum({"a": jax.numpy.ones(2), "b": 1.0}).item()
      3.0
    """
    sums = [jnp.sum(widen(x)) for x in jax.tree.leaves(tree)]
    if not sums:
        return jnp.asarray(0.0)
    if len(sums) == 1:
        return sums[0]
    if associative_reduction:
        return finished(jax.tree.reduce_associative(jnp.add, sums))
    return total(sums)


def max(tree: Any) -> Array:
    """Gives the largest element of all leaves; `-inf` if there are no elements.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.max({"a": jax.numpy.arange(3.0), "b": 1.0}).item()
      2.0
    """
    parts = [jnp.max(x) for x in jax.tree.leaves(tree) if jnp.size(x)]
    return finished(functools.reduce(jnp.maximum, parts)) if parts else jnp.asarray(-jnp.inf)


def min(tree: Any) -> Array:
    """Gives the smallest element of all leaves; `inf` if there are no elements.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.min({"a": jax.numpy.arange(3.0), "b": 1.0}).item()
      0.0
    """
    parts = [jnp.min(x) for x in jax.tree.leaves(tree) if jnp.size(x)]
    return finished(functools.reduce(jnp.minimum, parts)) if parts else jnp.asarray(jnp.inf)


def vdot(tree_x: Any, tree_y: Any) -> Array:
    """Gives the inner product of two trees: the sum of `conj(tree_x) * tree_y`.

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
    return sum(map_leaves("tree.vdot", _vdot, tree_x, tree_y))


def _vdot(x: Any, y: Any) -> Array:
    if jnp.shape(x) != jnp.shape(y):
        raise ValueError(f"the shapes are {jnp.shape(x)} and {jnp.shape(y)}")
    # the default would be a lower precision than float32 on some accelerators
    return jnp.vdot(widen(x), widen(y), precision=lax.Precision.HIGHEST)


def norm(tree: Any, ord: Any | None = None, squared: bool = False) -> Array:
    """Gives the norm of all leaves taken together, as if they were one vector.

    It is `(sum |x|**ord)**(1/ord)`, or the largest `|x|` for infinity: a real scalar, float32 or
    wider. Its gradient at zero is zero; the norm of an empty tree is 0.

    Args:
      tree: a pytree of arrays, complex ones among them.
      ord: 1, 2 or infinity (`jnp.inf`, `"inf"` or `"infinity"`). Default: `None`, which is 2.
      squared: whether to give the square of the norm; for 2 it takes no root. Default: no.

    Raises:
      ValueError: `ord` is another.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.tree.norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
      5.0
    """
    if ord is None or ord == 2:
        if squared:
            return sum(jax.tree.map(lambda x: abs_sq(floating(x)), tree))
        return global_norm(tree)
    if ord == 1:
        result = sum(jax.tree.map(_magnitude, tree))
    elif ord in (np.inf, "inf", "infinity"):
        parts = [jnp.max(_magnitude(x), initial=0) for x in jax.tree.leaves(tree)]
        result = finished(functools.reduce(jnp.maximum, parts, jnp.asarray(0.0)))
    else:
        raise ValueError(
            f"tree.norm: ord is {ord!r}, not one of None, 1, 2, inf, 'inf', 'infinity'"
        )
    return jnp.square(result) if squared else result


def _magnitude(x: Any) -> Array:
    x = floating(x)
    return safe_sqrt(abs_sq(x)) if jnp.iscomplexobj(x) else jnp.abs(x)


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
    return functools.reduce(operator.add, [int(jnp.size(x)) for x in jax.tree.leaves(tree)], 0)


def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Array:
    """Says whether two trees agree: `|a - b| <= atol + rtol * |b|` for all elements.

    Args:
      a: a pytree of arrays.
      b: a pytree of the same structure.
      rtol: how large the difference may be, relative to `b`. Default: 1e-5.
      atol: how large it may be in addition. Default: 1e-8.
      equal_nan: whether NaN equals NaN. Default: no.

    Returns:
      A boolean scalar array.

    Raises:
      ValueError: the structures differ; the message names the paths.

    Example:
      >>> from gradtx import tree
      >>> print(tree.allclose({"a": 1.0}, {"a": 1.0 + 1e-7}))
      True
    """

    def close(x: Any, y: Any) -> Array:
        return jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)

    verdicts = jax.tree.leaves(map_leaves("tree.allclose", close, a, b, names=("a", "b")))
    return functools.reduce(jnp.logical_and, verdicts, jnp.asarray(True))
