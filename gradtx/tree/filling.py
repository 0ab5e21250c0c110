"""Arrays and pytrees with the shapes of others."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.dtypes import canonicalize_dtype
from jax.typing import ArrayLike, DTypeLike

from gradtx._devices import placed_as
from gradtx.codecs import decoded
from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.engine.concrete import is_traced
from gradtx.engine.numerics import value_of


def zeros_like(tree: PyTree, dtype: DTypeLike | None = None) -> PyTree:
    """Returns a pytree of zeros.

    Args:
      tree: a pytree of arrays, whose shapes are used.
      dtype: the dtype of the zeros. Default: `None`, each leaf's own.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.zeros_like({"a": jax.numpy.ones(2)})["a"].tolist()
      [0.0, 0.0]
    """
    return jax.tree.map(lambda x: _zeros(x, dtype), decoded(tree))


def ones_like(tree: PyTree, dtype: DTypeLike | None = None) -> PyTree:
    """Returns a pytree of ones.

    Args:
      tree: a pytree of arrays, whose shapes are used.
      dtype: the dtype of the ones. Default: `None`, each leaf's own.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.ones_like({"a": jax.numpy.zeros(2)})["a"].tolist()
      [1.0, 1.0]
    """
    return jax.tree.map(lambda x: jnp.ones_like(x, dtype=dtype), decoded(tree))


def full_like(tree: PyTree, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> PyTree:
    """Returns a pytree filled with one value.

    Args:
      tree: a pytree of arrays, whose shapes are used.
      fill_value: a number, or an array that broadcasts to every leaf's shape.
      dtype: the dtype of the result. Default: `None`, each leaf's own.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.full_like({"a": jax.numpy.zeros(2)}, 3.0)["a"].tolist()
      [3.0, 3.0]
    """
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), decoded(tree))


def batch_shape(tree: PyTree, shape: Sequence[int] = ()) -> PyTree:
    """Repeats every leaf along new leading axes.

    Args:
      tree: a pytree of arrays.
      shape: the lengths of the new axes, which come before a leaf's own. Default: `()`, no axes.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.batch_shape({"a": jax.numpy.ones(2)}, (3,))["a"].shape
      (3, 2)
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def real_full_like(x: Array | jax.ShapeDtypeStruct, value: Scalar) -> Array:
    """Returns an array of the shape of `x` in its real dtype, such as a second moment.

    Args:
      x: a real or complex array, or its shape and dtype; its values are not used.
      value: the value of all elements.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import real_full_like
      >>> real_full_like(jnp.array([1 + 1j, 2]), 0.5)
      Array([0.5, 0.5], dtype=float32)
    """
    dtype = jnp.finfo(x.dtype).dtype if jnp.issubdtype(x.dtype, jnp.inexact) else None
    number = value_of(value)
    if isinstance(number, (int, float)) and number == 0:
        return _zeros(x, dtype)
    return lax.full_like(x, number, dtype)


def zeros_without(x: Array | jax.ShapeDtypeStruct, axes: int | tuple[int, ...]) -> Array:
    """Returns zeros of the shape of `x` without some axes, in its real dtype and with its sharding.

    Args:
      x: a real or complex array, or its shape and dtype; its values are not used.
      axes: the axis or axes to leave out.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import zeros_without
      >>> zeros_without(jnp.ones((2, 3)), axes=1)  # one number for each row
      Array([0., 0.], dtype=float32)
    """
    zeros = real_full_like(_sum.eval_shape(x, axes), 0)
    return placed_as(zeros, _sum(x, axes)) if is_traced(x) else zeros


_sum = jax.jit(jnp.sum, static_argnums=1)  # one function, so that JAX caches its trace


def stacked_zeros(x: Array, n: int) -> Array:
    """Returns zeros for `n` arrays like one, along a new first axis, each sharded as it is.

    Args:
      x: an array; its values are not used.
      n: the length of the first axis.
    """
    zeros = placed_as(_zeros(x, None), x)
    return jnp.broadcast_to(zeros, (n, *zeros.shape))


def _zeros(x: ArrayLike | jax.ShapeDtypeStruct, dtype: DTypeLike | None) -> Array:
    """Returns `jnp.zeros_like(x, dtype)`, traced in half the time where no mesh is involved."""
    if isinstance(x, jax.Array) and is_traced(x):
        like = jax.typeof(x)
        wanted = like.dtype if dtype is None else jnp.dtype(dtype)
        usual = jnp.issubdtype(wanted, jnp.number) and canonicalize_dtype(wanted) == wanted
        if usual and like.sharding.mesh.empty and not like.weak_type:
            return lax.broadcast(np.zeros((), wanted), like.shape)
    return jnp.zeros_like(x, dtype=dtype)
