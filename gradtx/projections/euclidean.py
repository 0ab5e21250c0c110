"""Projections onto the Euclidean sphere and ball."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.lax import stop_gradient

from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.engine.numerics import abs_sq
from gradtx.engine.scalars import finished, total
from gradtx.projections.leaves import checked_scale, flattened, rebuilt
from gradtx.tree.norms import safe_sqrt


def magnitude(arrays: Sequence[Array]) -> Array:
    """Returns the largest absolute value in several arrays, or 1 if all are 0; without gradient.

    Vectors divided by it have norms that neither overflow nor vanish.

    Args:
      arrays: real or complex arrays.
    """
    largest = jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in arrays]).max()
    return finished(stop_gradient(jnp.where(largest == 0, 1, largest)))


def norm(arrays: Sequence[Array]) -> Array:
    """Returns the Euclidean norm of several arrays together; its gradient at 0 is 0.

    Args:
      arrays: real or complex arrays, of moderate size.
    """
    return safe_sqrt(total([jnp.sum(abs_sq(x)) for x in arrays]))


def projection_l2_sphere(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """Projects onto the Euclidean sphere: `p = scale * x / norm(x)`.

    This is the nearest point of `{p : norm(p) = scale}`, where the norm is over all leaves. From
    the origin all points are equally near: the result is the one whose elements are all equal, with
    gradient 0.

    Args:
      tree: the pytree to project, of real or complex arrays with one element at least.
      scale: the radius, a scalar, not negative. Default: 1.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not numeric.
      ValueError: if there are no elements, or `scale` is negative or not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_l2_sphere(jnp.array([3.0, 4.0])).tolist()
      [0.6, 0.8]
    """
    name = "projection_l2_sphere"
    scale = checked_scale(name, scale)
    leaves, treedef = flattened(name, tree, complex_too=True)
    arrays = [x for x in leaves if x is not None]
    if not sum(x.size for x in arrays):
        raise ValueError(f"{name}: there is nothing to project, the tree has no elements")
    unit = magnitude(arrays)
    at_origin = finished(norm([x / unit for x in arrays]) == 0)
    moved = [None if x is None else jnp.where(at_origin, 1, x / unit) for x in leaves]
    factor = finished(scale / norm([x for x in moved if x is not None]))
    return rebuilt(treedef, [None if x is None else x * factor for x in moved], tree)


def projection_l2_ball(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """Projects onto the Euclidean ball: `p = x * min(1, scale / norm(x))`.

    This is the nearest point of `{p : norm(p) <= scale}`, where the norm is over all leaves.

    Args:
      tree: the pytree to project, of real or complex arrays.
      scale: the radius, a scalar, not negative. Default: 1.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not numeric.
      ValueError: if `scale` is negative or not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_l2_ball(jnp.array([3.0, 4.0]), 2.5).tolist()
      [1.5, 2.0]
      >>> projections.projection_l2_ball(jnp.array([0.3, 0.4])).tolist()
      [0.3, 0.4]
    """
    name = "projection_l2_ball"
    scale = checked_scale(name, scale)
    leaves, treedef = flattened(name, tree, complex_too=True)
    arrays = [x for x in leaves if x is not None]
    if not arrays:
        return tree
    unit = magnitude(arrays)
    length = norm([x / unit for x in arrays])
    inside = finished(unit * length <= scale)
    # The origin is inside, where the factor is not used.
    factor = finished(scale / jnp.where(length == 0, 1, length))

    def project(x: Array) -> Array:
        return jnp.where(inside, x, x / unit * factor)

    return rebuilt(treedef, [None if x is None else project(x) for x in leaves], tree)
