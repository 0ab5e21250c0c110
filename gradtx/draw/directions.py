"""Planes through trained parameters, and training's path projected onto them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gradtx.engine.base import Array, Params
from gradtx.engine.paths import describe_difference, nth_path

Plane = tuple[Params, Params]
"""Two directions in the space of the parameters."""


def random_direction(key: Array, params: Params) -> Params:
    """Gives a random direction, normalized filter by filter.

    Each entry is normal; then each filter of the direction is scaled to the norm of the filter of
    the parameters: `d_i * norm(p_i) / norm(d_i)`. So one unit along it changes every filter by as
    much as it is long, and networks of other scales can be compared. A filter is what gives one
    output: all entries of an array that share the index of the last axis. Arrays of fewer than two
    axes, biases above all, have no filters and stay as they are: their direction is 0.

    Args:
      key: the key of the random numbers.
      params: the parameters, with an array of two axes at least.

    Raises:
      ValueError: no array has two axes.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", arXiv:1712.09913, section 4.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradtx.draw import random_direction
      >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
      >>> d = random_direction(jax.random.key(0), params)
      >>> print(jnp.linalg.norm(d["kernel"], axis=0).round(3), d["bias"])
      [5. 2.] [0. 0.]
    """
    if not any(jnp.ndim(leaf) >= 2 for leaf in jax.tree.leaves(params)):
        raise ValueError(
            "loss_surface: params have no array of two or more axes, so there are no filters whose "
            "norms random directions could take"
        )
    return _random_direction(key, params)


@jax.jit
def _random_direction(key: Array, params: Params) -> Params:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(map(_filter_normalized, keys, leaves))


def _filter_normalized(key: Array, p: Any) -> Array:
    p = jnp.asarray(p)
    if p.ndim < 2 or not jnp.issubdtype(p.dtype, jnp.inexact):
        return jnp.zeros_like(p)
    wide = jnp.promote_types(p.dtype, jnp.float32)
    d, p = jax.random.normal(key, p.shape, wide), p.astype(wide)
    axes = tuple(range(p.ndim - 1))
    ours, theirs = (jnp.sqrt(jnp.sum(jnp.abs(x) ** 2, axes, keepdims=True)) for x in (d, p))
    return d * (theirs / ours)


def path_directions(params: Params, trajectory: Any) -> Plane:
    """Gives the two directions in which a trajectory moved most, seen from its end.

    They are the principal components of the points' distances from `params`, at right angles, each
    as long as the farthest that the trajectory was along it.

    Args:
      params: the end.
      trajectory: the points, as for `loss_surface`.

    Raises:
      ValueError: the points lie on one line, or there are fewer than two besides the end.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", arXiv:1712.09913, section 7.
    """
    moved, (flat, unravel) = _moved(params, trajectory), ravel_pytree(params)
    powers, mixes = np.linalg.eigh(_products(moved, moved))
    if len(powers) < 2 or powers[-2] <= 1e-9 * powers[-1]:
        raise ValueError(
            "loss_surface: the trajectory's points lie on one line, so it spans no plane; give "
            'more of them, or directions="random"'
        )
    directions = []
    for mix, power in zip(mixes.T[:-3:-1], powers[:-3:-1], strict=True):
        unit = mix @ moved / np.sqrt(power)
        along = _products(moved, unit[None])[:, 0]
        farthest = along[np.argmax(np.abs(along))]
        directions.append(unravel(jnp.asarray(farthest * unit, flat.dtype)))
    return directions[0], directions[1]


def projected(params: Params, trajectory: Any, directions: Plane) -> tuple[np.ndarray, float]:
    """Projects a trajectory onto a plane, by least squares.

    Args:
      params: the plane's centre.
      trajectory: the points, as for `loss_surface`.
      directions: what spans the plane.

    Returns:
      The coordinates along the directions, `[points, 2]`, and the share of the points' squared
      distances from the centre that lies in the plane, from 0 to 1.
    """
    moved = _moved(params, trajectory)
    basis = np.stack([_flat(d) for d in directions])
    within = np.linalg.lstsq(_products(basis, basis), _products(basis, moved), rcond=None)[0].T
    whole = float(np.sum(np.abs(moved) ** 2))
    return within, float(np.sum(np.abs(within @ basis) ** 2)) / whole if whole else 1.0


def _moved(params: Params, trajectory: Any) -> np.ndarray:
    """The points seen from the end, a row of numbers each, in double precision."""
    moved = np.stack([_flat(row) for row in _rows(params, trajectory)]) - _flat(params)
    lost = np.flatnonzero(~np.isfinite(moved).all(1))
    if lost.size:
        raise ValueError(f"loss_surface: point {lost[0]} of the trajectory is not finite")
    return moved


def _flat(tree: Params) -> np.ndarray:
    flat = np.asarray(ravel_pytree(tree)[0])
    return flat.astype(np.result_type(flat, np.float64))


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The inner products of rows, of complex numbers those of their parts."""
    return np.real(a @ b.conj().T)


def _rows(params: Params, trajectory: Any) -> Sequence[Params]:
    if jax.tree.structure(trajectory) == jax.tree.structure(params):
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(trajectory)}
        if len(lengths) != 1 or lengths == {()}:
            raise ValueError(
                "loss_surface: a trajectory of stacked arrays must have a first axis over its "
                f"points, of one length; got {sorted(lengths)}"
            )
        ((count,),) = lengths
        rows = [jax.tree.map(lambda a, i=i: a[i], trajectory) for i in range(count)]
    else:
        rows = list(trajectory)
    if not rows:
        raise ValueError("loss_surface: the trajectory has no points")
    for i, row in enumerate(rows):
        _check_row(f"point {i} of the trajectory", row, params)
    return rows


def _check_row(name: str, row: Params, params: Params) -> None:
    if jax.tree.structure(row) != jax.tree.structure(params):
        raise ValueError(f"loss_surface: {describe_difference('params', params, name, row)}")
    pairs = zip(jax.tree.leaves(row), jax.tree.leaves(params), strict=True)
    for i, (a, b) in enumerate(pairs):
        if np.shape(a) != np.shape(b):
            raise ValueError(
                f"loss_surface: {name} has {nth_path(params, i)} of shape {np.shape(a)}, and "
                f"params have {np.shape(b)}"
            )
