"""Random pytrees, and pytrees of random keys."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from gradtx.engine.base import Array, PyTree
from gradtx.engine.draws import drawn, sampled, type_of
from gradtx.engine.paths import nth_path
from gradtx.tree.mapping import errors_at, map_leaves


def split_key_like(rng_key: ArrayLike, target_tree: PyTree) -> PyTree:
    """Returns a pytree of different random keys.

    Args:
      rng_key: a random key, typed or not, to which `jax.random.split` is applied.
      target_tree: a pytree, whose structure is that of the result.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> keys = tree.split_key_like(jax.random.key(0), {"a": 1.0, "b": 2.0})
      >>> bool(keys["a"] == keys["b"])
      False
    """
    treedef = jax.tree.structure(target_tree)
    return treedef.unflatten(list(jax.random.split(rng_key, treedef.num_leaves)))


def random_like(
    rng_key: ArrayLike,
    target_tree: PyTree,
    sampler: Callable[..., Array] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> PyTree:
    """Draws a random pytree with the shapes of another; its leaves are independent.

    Args:
      rng_key: a random key, typed or not.
      target_tree: a pytree of arrays, whose shapes are used.
      sampler: `sampler(key, shape, dtype) -> array`, such as the functions of `jax.random`.
        Default: `jax.random.normal`.
      dtype: the dtype of all leaves. Default: `None`, each leaf's own.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> noise = tree.random_like(jax.random.key(0), {"a": jax.numpy.ones((2, 3))})
      >>> noise["a"].shape
      (2, 3)
    """

    where = "tree.random_like"

    def kind_of(x: ArrayLike) -> jax.ShapeDtypeStruct:
        kind = type_of(x)
        return kind if dtype is None else kind.update(dtype=jnp.dtype(dtype))

    found = map_leaves(where, kind_of, target_tree, names=("target_tree",))
    kinds, treedef = jax.tree.flatten(found)
    sample = sampled(sampler)

    def draw(key: Array, kind: jax.ShapeDtypeStruct) -> Array:
        with errors_at(where, lambda: f"target_tree{nth_path(found, kinds.index(kind))}"):
            return sample(key, kind)

    return treedef.unflatten(drawn(draw, jax.random.split(rng_key, len(kinds)), kinds))


def unwrap_random_key_data(input_tree: PyTree) -> PyTree:
    """Replaces typed random keys by their integer data; other leaves are not changed.

    Args:
      input_tree: a pytree, such as a state to be compared or saved.

    Example:
      >>> import jax
      >>> from gradtx import tree
      >>> tree.unwrap_random_key_data({"key": jax.random.key(3), "count": 1})["key"].tolist()
      [0, 3]
    """

    def unwrap(x: Any) -> Any:
        typed = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if typed else x

    return jax.tree.map(unwrap, input_tree)
