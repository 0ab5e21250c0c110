"""Projections onto lines, hyperplanes and half-spaces.

Sections 8.1 and 8.2 of "Convex Optimization" (Boyd and Vandenberghe, 2004).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array, PyTree
from gradtx.engine.numerics import abs_sq
from gradtx.engine.paths import nth_path
from gradtx.engine.scalars import finished, total
from gradtx.projections.euclidean import magnitude
from gradtx.projections.leaves import aligned, flattened, rebuilt


def _along(
    name: str, x: PyTree, a: PyTree, move: Callable[[Array, Array, Array], Callable[..., Array]]
) -> PyTree:
    """Moves the leaves of `x` along those of `a`.

    Args:
      name: the name of the calling function, for errors.
      x: the tree to project.
      a: the tree of the direction.
      move: called with `<d, x>`, `<d, d>` (1 where `a` is 0) and `s`, where `s` is the largest
        absolute value in `a` and `d = a / s`, so that these products neither overflow nor vanish.
        It returns the function `(leaf of x, leaf of d) -> leaf`.
    """
    xs, treedef = flattened(name, x, role="x", complex_too=True)
    direction = treedef.unflatten(aligned(name, "a", a, x, treedef, role="x"))
    given, _ = flattened(name, direction, role="a", complex_too=True)
    for i, (leaf, other) in enumerate(zip(xs, given, strict=True)):
        if getattr(leaf, "shape", None) != getattr(other, "shape", None):  # or one is None
            raise ValueError(
                f"{name}: x{nth_path(x, i)} is {_told(leaf)}, a{nth_path(x, i)} is "
                f"{_told(other)}; a must have the shapes of x"
            )
        if leaf is not None and jnp.iscomplexobj(other) and not jnp.iscomplexobj(leaf):
            at = nth_path(x, i)
            raise TypeError(f"{name}: x{at} is real, but a{at} is complex; cast x to complex")
    pairs = [
        (leaf, other)
        for leaf, other in zip(xs, given, strict=True)
        if leaf is not None and other is not None
    ]
    if not pairs:
        return x
    size = magnitude([other for _, other in pairs])
    inner = total([jnp.vdot(other / size, leaf) for leaf, other in pairs])
    square = total([jnp.sum(abs_sq(other / size)) for _, other in pairs])
    moved = move(inner, jnp.where(square == 0, 1, square), size)
    return rebuilt(
        treedef,
        [
            None if leaf is None or other is None else moved(leaf, other / size)
            for leaf, other in zip(xs, given, strict=True)
        ],
        x,
    )


def _told(x: Array | None) -> str:
    return "None" if x is None else f"of shape {x.shape}"


def _checked_offset(name: str, b: ArrayLike) -> Array:
    b = jnp.asarray(b)
    if b.ndim:
        raise ValueError(f"{name}: b must be a scalar, got the shape {b.shape}")
    return b


def projection_vector(x: PyTree, a: PyTree) -> PyTree:
    """Projects onto the line through the origin and `a`: `p = a * <a, x> / <a, a>`.

    This is the nearest point of `{t a : t a number}`, where inner products are over all leaves and
    conjugate `a`. Where `a` is 0, so is the projection.

    Args:
      x: the pytree to project, of real or complex arrays.
      a: the direction, a tree of the structure and shapes of `x`.

    Returns:
      A tree like `x`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not numeric, or one of `x` is real where that of `a` is complex.
      ValueError: if the structures or shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> projections.projection_vector(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])).tolist()
      [1.32, 1.76]
    """

    def move(inner: Array, square: Array, size: Array) -> Callable[..., Array]:
        del size  # a line has no offset to scale
        step = finished(inner / square)
        return lambda leaf, d: d * step

    return _along("projection_vector", x, a, move)


def projection_hyperplane(x: PyTree, a: PyTree, b: ArrayLike) -> PyTree:
    """Projects onto a hyperplane: `p = x - a * (<a, x> - b) / <a, a>`.

    This is the nearest point of `{p : <a, p> = b}`, where inner products are over all leaves and
    conjugate `a`. Where `a` is 0 there is no hyperplane, and `x` is returned unchanged.

    Args:
      x: the pytree to project, of real or complex arrays.
      a: the normal, a tree of the structure and shapes of `x`.
      b: the offset, a scalar.

    Returns:
      A tree like `x`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not numeric, or one of `x` is real where that of `a` is complex.
      ValueError: if the structures or shapes differ, or `b` is not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> x, a = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
      >>> projections.projection_hyperplane(x, a, 5.0).tolist()
      [0.28, 1.04]
    """
    name = "projection_hyperplane"
    offset = _checked_offset(name, b)

    def move(inner: Array, square: Array, size: Array) -> Callable[..., Array]:
        step = finished((inner - offset / size) / square)
        return lambda leaf, d: leaf - d * step

    return _along(name, x, a, move)


def projection_halfspace(x: PyTree, a: PyTree, b: ArrayLike) -> PyTree:
    """Projects onto a half-space: `p = x - a * max(<a, x> - b, 0) / <a, a>`.

    This is the nearest point of `{p : <a, p> <= b}`, where inner products are over all leaves; of
    complex ones the real part is taken. Where `a` is 0, `x` is returned unchanged.

    Args:
      x: the pytree to project, of real or complex arrays.
      a: the outward normal, a tree of the structure and shapes of `x`.
      b: the offset, a real scalar.

    Returns:
      A tree like `x`, with its dtypes; integers become floats.

    Raises:
      TypeError: if a leaf is not numeric, or one of `x` is real where that of `a` is complex.
      ValueError: if the structures or shapes differ, or `b` is not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import projections
      >>> x, a = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
      >>> projections.projection_halfspace(x, a, 5.0).tolist()
      [0.28, 1.04]
      >>> projections.projection_halfspace(x, a, 20.0).tolist()
      [1.0, 2.0]
    """
    name = "projection_halfspace"
    offset = _checked_offset(name, b)

    def move(inner: Array, square: Array, size: Array) -> Callable[..., Array]:
        step = finished(jnp.maximum(jnp.real(inner) - offset / size, 0) / square)
        return lambda leaf, d: leaf - d * step

    return _along(name, x, a, move)
