"""Projections onto the simplex, and onto the sphere and ball of the l1 norm.

"Efficient projections onto the l1-ball for learning in high dimensions" (Duchi et al., ICML 2008).
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax.lax import stop_gradient

from gradtx.engine.base import Array, PyTree, PyTreeDef, Scalar
from gradtx.engine.scalars import finished, total
from gradtx.projections.leaves import checked_scale, flattened, rebuilt


def onto_simplex(x: Array, scale: Scalar) -> Array:
    """Projects each row of `x`, along its last axis, onto the simplex.

    The projection is `max(x - tau, 0)`, with the `tau` for which it sums to `scale`. The elements
    above `tau`, the support, are found by sorting. Then `tau` is computed again from them.
    Gradients flow through this second computation alone, so that the Jacobian is exact and needs no
    derivative of the sort.

    Args:
      x: real, `[..., n]`, with `n > 0`, in float32 or wider. Elements at `-inf` become 0.
      scale: the sum of each row, a scalar that is not negative.
    """
    return _above(x, *_thresholds(x, scale))


def _thresholds(x: Array, scale: Scalar) -> tuple[Array, Array, Array]:
    """Returns each row's maximum, and `tau` minus it: as found by sorting, and as recomputed."""
    largest = stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    # Sums over elements near 0 keep the digits that sums over large ones would lose.
    z = x - largest
    falling = -jnp.sort(-stop_gradient(z), axis=-1)
    excess = jnp.cumsum(falling, axis=-1) - scale
    k = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    count = jnp.maximum(jnp.sum(k * falling > excess, axis=-1, keepdims=True), 1)
    found = jnp.take_along_axis(excess, count - 1, axis=-1) / count
    support = _support(z, found)
    count = jnp.sum(support, axis=-1, keepdims=True)
    tau = (jnp.sum(jnp.where(support, z, 0), axis=-1, keepdims=True) - scale) / count
    return largest, found, tau


def _support(z: Array, tau: Array) -> Array:
    # The support includes the largest element even if `scale` is 0, and any nan, to propagate it.
    return ~(z <= tau) | (z == 0)


def _above(x: Array, largest: Array, found: Array, tau: Array) -> Array:
    """Returns the excess over the threshold, and 0 below it."""
    z = x - largest
    return jnp.where(_support(z, found) & ~(z <= tau), z - tau, 0)


def _of_elements(name: str, tree: PyTree) -> tuple[list[Array | None], PyTreeDef]:
    """Returns the leaves of a tree that has elements, and its structure."""
    leaves, treedef = flattened(name, tree)
    if not sum(x.size for x in leaves if x is not None):
        raise ValueError(f"{name}: there is nothing to project, the tree has no elements")
    return leaves, treedef


def _of_all(leaves: Sequence[Array | None], scale: Scalar) -> Callable[[Array], Array]:
    """Returns the projection of a leaf, where all leaves together are one vector."""
    vector = jnp.concatenate([x.ravel() for x in leaves if x is not None])
    numbers = [finished(x[0]) for x in _thresholds(vector, scale)]
    return lambda x: _above(x, *numbers)


def projection_simplex(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """Projects onto the simplex: non-negative elements that sum to `scale`.

    `p = max(x - tau, 0)`, with the number `tau` for which `sum(p) = scale`, is the nearest point of
    `{p : p >= 0, sum(p) = scale}`, where sums are over all leaves. For a vector of scores this is
    the sparse distribution "sparsemax" (arXiv:1602.02068).

    Args:
      tree: the pytree to project, of real arrays with one element at least. Elements at `-inf`
        become 0.
      scale: the sum, a scalar, not negative. Default: 1.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not real.
      ValueError: if there are no elements, or `scale` is negative or not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_simplex(jnp.array([0.5, 0.9, -2.0])).tolist()
      [0.3, 0.7, 0.0]
    """
    name = "projection_simplex"
    scale = checked_scale(name, scale)
    leaves, treedef = _of_elements(name, tree)
    project = _of_all(leaves, scale)
    return rebuilt(treedef, [None if x is None else project(x) for x in leaves], tree)


def _side(x: Array) -> Array:
    return jnp.where(x < 0, -1, 1).astype(x.dtype)  # 0 counts as positive, or it could not move


def _onto_l1_sphere(leaves: Sequence[Array | None], scale: Scalar) -> list[Array | None]:
    project = _of_all([None if x is None else _side(x) * x for x in leaves], scale)
    return [None if x is None else _side(x) * project(_side(x) * x) for x in leaves]


def projection_l1_sphere(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """Projects onto the sphere of the l1 norm: absolute values that sum to `scale`.

    `p = sign(x) * projection_simplex(|x|, scale)` is a nearest point of `{p : sum(|p|) = scale}`,
    where sums are over all leaves and `sign(0)` counts as 1. (The nearest point is not unique where
    elements that must grow are 0.)

    Args:
      tree: the pytree to project, of real arrays with one element at least.
      scale: the radius, a scalar, not negative. Default: 1.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not real.
      ValueError: if there are no elements, or `scale` is negative or not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_l1_sphere(jnp.array([0.1, -0.3])).tolist()
      [0.4, -0.6]
    """
    name = "projection_l1_sphere"
    scale = checked_scale(name, scale)
    leaves, treedef = _of_elements(name, tree)
    return rebuilt(treedef, _onto_l1_sphere(leaves, scale), tree)


def projection_l1_ball(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """Projects onto the ball of the l1 norm: absolute values that sum to `scale` at most.

    `p = x` where `sum(|x|) <= scale`, else the projection onto the sphere, is the nearest point of
    `{p : sum(|p|) <= scale}`, where sums are over all leaves. ("Efficient projections onto the
    l1-ball for learning in high dimensions", ICML 2008.)

    Args:
      tree: the pytree to project, of real arrays with one element at least.
      scale: the radius, a scalar, not negative. Default: 1.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not real.
      ValueError: if there are no elements, or `scale` is negative or not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_l1_ball(jnp.array([0.5, -0.9, 0.1])).tolist()
      [0.3, -0.7, 0.0]
    """
    name = "projection_l1_ball"
    scale = checked_scale(name, scale)
    leaves, treedef = _of_elements(name, tree)
    inside = finished(total([jnp.sum(jnp.abs(x)) for x in leaves if x is not None]) <= scale)
    outside = _onto_l1_sphere(leaves, scale)
    return rebuilt(
        treedef,
        [
            None if x is None or y is None else jnp.where(inside, x, y)
            for x, y in zip(leaves, outside, strict=True)
        ],
        tree,
    )
