"""Planes through trained parameters, and projections of training trajectories onto them."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gradtx.engine.base import Array, Params
from gradtx.engine.draws import drawn
from gradtx.engine.paths import describe_difference, nth_path

Plane = tuple[Params, Params]
"""Two directions in the space of the parameters."""
Trajectory = Iterable[Params] | Params
"""Points in the space of the parameters: a list of pytrees, or one with stacked arrays."""


def random_direction(key: Array, params: Params) -> Params:
    """Returns a random direction, normalized filter by filter.

    Its elements are normally distributed; then each filter of the direction is scaled to the norm
    of the corresponding filter of the parameters: `d_i * norm(p_i) / norm(d_i)`. So a unit step
    along it changes every filter by its own norm, and networks of different scales can be compared.
    A filter belongs to one output: all elements of an array with the same index of the last axis.
    Arrays with fewer than two axes, such as biases, have no filters: their direction is 0.

    Args:
      key: a random key.
      params: the parameters, with at least one array of two or more axes.

    Raises:
      ValueError: no array has two or more axes.

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
            "loss_surface: params must have an array of two or more axes, because random "
            "directions are normalized by the norms of filters"
        )
    return _random_direction(key, params)


@jax.jit
def _random_direction(key: Array, params: Params) -> Params:
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, params))
    keys = jax.random.split(key, len(leaves))
    filtered = [
        i for i, p in enumerate(leaves) if p.ndim >= 2 and jnp.issubdtype(p.dtype, jnp.inexact)
    ]
    kinds = [(p.shape, jnp.promote_types(p.dtype, jnp.float32)) for p in leaves]
    found = drawn(
        lambda key, kind: jax.random.normal(key, *kind),
        keys[np.array(filtered, int)],
        [kinds[i] for i in filtered],
    )
    directions = list(map(jnp.zeros_like, leaves))
    for i, d in zip(filtered, found, strict=True):
        directions[i] = _filter_normalized(d, leaves[i])
    return structure.unflatten(directions)


def _filter_normalized(d: Array, p: Array) -> Array:
    axes = tuple(range(p.ndim - 1))
    p = p.astype(d.dtype)
    ours, theirs = (jnp.sqrt(jnp.sum(jnp.abs(x) ** 2, axes, keepdims=True)) for x in (d, p))
    return d * (theirs / ours)


def path_directions(params: Params, trajectory: Trajectory) -> Plane:
    """Returns the two directions in which a trajectory moved most, relative to its end.

    They are the first two principal components of the points' differences from `params`. They are
    orthogonal, and each is as long as the largest projection of a difference onto it.

    Args:
      params: the end of the trajectory.
      trajectory: the points, as in `loss_surface`.

    Raises:
      ValueError: the points are on one line, or there are fewer than two besides the end.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", arXiv:1712.09913, section 7.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.draw import path_directions
      >>> end = {"w": jnp.zeros(3)}
      >>> points = [{"w": jnp.array(w)} for w in ([0.0, 4.0, 0.0], [0.0, 0.0, 1.0])]
      >>> first, second = path_directions(end, points)
      >>> print(first["w"], second["w"])
      [0. 4. 0.] [0. 0. 1.]
    """
    moved, (flat, unravel) = _moved(params, trajectory), ravel_pytree(params)
    powers, mixes = np.linalg.eigh(_products(moved, moved))
    if len(powers) < 2 or powers[-2] <= 1e-9 * powers[-1]:
        raise ValueError(
            "loss_surface: the trajectory must span a plane, and its points are on one line; give "
            'more points, or directions="random"'
        )
    directions = []
    for mix, power in zip(mixes.T[:-3:-1], powers[:-3:-1], strict=True):
        unit = mix @ moved / np.sqrt(power)
        along = _products(moved, unit[None])[:, 0]
        farthest = along[np.argmax(np.abs(along))]
        directions.append(unravel(jnp.asarray(farthest * unit, flat.dtype)))
    return directions[0], directions[1]


def projected(
    params: Params, trajectory: Trajectory, directions: Plane
) -> tuple[np.ndarray, float]:
    """Projects a trajectory onto a plane, by least squares.

    Args:
      params: the centre of the plane.
      trajectory: the points, as in `loss_surface`.
      directions: the directions that span the plane.

    Returns:
      The coordinates along the directions, `[points, 2]`, and the fraction of the points' squared
      distances from the centre that is in the plane, from 0 to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.draw import projected
      >>> axes = {"w": jnp.array([1.0, 0.0, 0.0])}, {"w": jnp.array([0.0, 1.0, 0.0])}
      >>> points = [{"w": jnp.array([2.0, 0.0, 0.0])}, {"w": jnp.array([0.0, 2.0, 2.0])}]
      >>> way, within = projected({"w": jnp.zeros(3)}, points, axes)
      >>> print(way.tolist(), f"{within:.2f}")
      [[2.0, 0.0], [0.0, 2.0]] 0.67
    """
    moved = _moved(params, trajectory)
    basis = np.stack([_flat(d) for d in directions])
    within = np.linalg.lstsq(_products(basis, basis), _products(basis, moved), rcond=None)[0].T
    whole = float(np.sum(np.abs(moved) ** 2))
    return within, float(np.sum(np.abs(within @ basis) ** 2)) / whole if whole else 1.0


def _moved(params: Params, trajectory: Trajectory) -> np.ndarray:
    """Returns the points' differences from the end, flattened to rows, in double precision."""
    moved = np.stack([_flat(row) for row in _rows(params, trajectory)]) - _flat(params)
    lost = np.flatnonzero(~np.isfinite(moved).all(1))
    if lost.size:
        raise ValueError(f"loss_surface: the trajectory must be finite, and point {lost[0]} is not")
    return moved


def _flat(tree: Params) -> np.ndarray:
    flat = np.asarray(ravel_pytree(tree)[0])
    return flat.astype(np.result_type(flat, np.float64))


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the real inner products of the rows of `a` and `b`."""
    return np.real(a @ b.conj().T)


def _rows(params: Params, trajectory: Trajectory) -> Sequence[Params]:
    if jax.tree.structure(trajectory) == jax.tree.structure(params):
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(trajectory)}
        if len(lengths) != 1 or lengths == {()}:
            raise ValueError(
                "loss_surface: the stacked arrays of a trajectory must have first axes of the same "
                f"length, over its points, got {sorted(lengths)}"
            )
        ((count,),) = lengths
        rows = [jax.tree.map(lambda a, i=i: a[i], trajectory) for i in range(count)]
    else:
        rows = list(trajectory)
    if not rows:
        raise ValueError("loss_surface: the trajectory must not be empty")
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
                f"loss_surface: {name} must have the shapes of params, got {np.shape(a)} at "
                f"{nth_path(params, i)} instead of {np.shape(b)}"
            )
