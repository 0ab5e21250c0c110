"""Projections onto boxes, which treat each element separately."""

import operator

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, PyTree
from gradtx.engine.paths import is_none, nth_path
from gradtx.projections.leaves import aligned, flattened, rebuilt


def projection_box(tree: PyTree, lower: PyTree, upper: PyTree) -> PyTree:
    """Projects onto a box: every element between its bounds.

    `p = min(max(x, lower), upper)`, the nearest point of `{p : lower <= p <= upper}`.

    Args:
      tree: the pytree to project, of real arrays.
      lower: the lower bounds: a tree of the same structure, each leaf of a shape that broadcasts
        to that of `tree`; or one number or array for all leaves; or `None` for no bound.
      upper: the upper bounds, likewise. Where `upper < lower`, the result is `upper`.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not real.
      ValueError: if the structures or shapes of the bounds do not fit, or both bounds are numbers
        and `lower > upper`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_box(jnp.array([-1.0, 0.5, 3.0]), 0.0, 2.0).tolist()
      [0.0, 0.5, 2.0]
    """
    return _clipped("projection_box", tree, lower, upper)


def _clipped(name: str, tree: PyTree, lower: PyTree, upper: PyTree) -> PyTree:
    both = isinstance(lower, (int, float)) and isinstance(upper, (int, float))
    if both and lower > upper:
        raise ValueError(
            f"{name}: lower must not be above upper, got lower={lower} and upper={upper}"
        )
    leaves, treedef = flattened(name, tree)

    def bounds(role: str, given: PyTree) -> list[Array | None]:
        one_for_all = jax.tree.structure(given, is_leaf=is_none).num_nodes == 1
        each = [given] * len(leaves) if one_for_all else aligned(name, role, given, tree, treedef)
        found: list[Array | None] = []
        for i, (x, bound) in enumerate(zip(leaves, each, strict=True)):
            if x is None or bound is None:
                found.append(None)
                continue
            shape = jnp.shape(bound)
            if len(shape) > x.ndim or any(
                n not in (1, m) for n, m in zip(shape[::-1], x.shape[::-1], strict=False)
            ):
                raise ValueError(
                    f"{name}: {role} of shape {shape} does not broadcast to tree"
                    f"{nth_path(tree, i)} of shape {x.shape}"
                )
            found.append(jnp.asarray(bound).astype(x.dtype))
        return found

    def clip(x: Array | None, low: Array | None, high: Array | None) -> Array | None:
        if x is None:
            return None
        x = x if low is None else jnp.maximum(x, low)
        return x if high is None else jnp.minimum(x, high)

    clipped = map(clip, leaves, bounds("lower", lower), bounds("upper", upper))
    return rebuilt(treedef, list(clipped), tree)


def projection_non_negative(tree: PyTree) -> PyTree:
    """Projects onto the non-negative orthant: negative elements become 0.

    `p = max(x, 0)`, the nearest point of `{p : p >= 0}`.

    Args:
      tree: the pytree to project, of real arrays.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not real.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_non_negative(jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]
    """
    return _clipped("projection_non_negative", tree, 0, None)


def projection_hypercube(tree: PyTree, scale: PyTree = 1) -> PyTree:
    """Projects onto a hypercube with a corner at the origin: every element in `[0, scale]`.

    `p = min(max(x, 0), scale)`, the nearest point of `{p : 0 <= p <= scale}`.

    Args:
      tree: the pytree to project, of real arrays.
      scale: the length of the edges, not negative: a number or array for all leaves, or a tree of
        the same structure. Default: 1.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not real.
      ValueError: if `scale` is a negative number, or its structure or shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_hypercube(jnp.array([-1.0, 0.5, 3.0])).tolist()
      [0.0, 0.5, 1.0]
    """
    name = "projection_hypercube"
    if isinstance(scale, (int, float)) and scale < 0:
        raise ValueError(f"{name}: scale must not be negative, got {scale}")
    return _clipped(name, tree, 0, scale)


def projection_linf_ball(tree: PyTree, scale: PyTree = 1) -> PyTree:
    """Projects onto the ball of the maximum norm: every element in `[-scale, scale]`.

    `p = min(max(x, -scale), scale)`, the nearest point of `{p : max(|p|) <= scale}`.

    Args:
      tree: the pytree to project, of real arrays.
      scale: the radius, not negative: a number or array for all leaves, or a tree of the same
        structure. Default: 1.

    Returns:
      A tree like `tree`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not real.
      ValueError: if `scale` is a negative number, or its structure or shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_linf_ball(jnp.array([-2.0, 0.5, 3.0])).tolist()
      [-1.0, 0.5, 1.0]
    """
    name = "projection_linf_ball"
    if isinstance(scale, (int, float)) and scale < 0:
        raise ValueError(f"{name}: scale must not be negative, got {scale}")
    return _clipped(name, tree, jax.tree.map(operator.neg, scale), scale)
