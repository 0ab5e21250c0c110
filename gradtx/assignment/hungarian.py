"""The assignment problem: pairs of rows and columns of the least total cost."""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.assignment.bids import bid
from gradtx.assignment.matching import unmatched
from gradtx.assignment.paths import augment_all, place_the_rest
from gradtx.engine.base import Array
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.numerics import widen


def hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[Array, Array]:
    r"""Assigns rows to columns, one to one, at the least total cost.

    It minimizes `sum(cost_matrix[i, j])` over all ways to pair `min(n, m)` rows and columns. Rows
    first bid for columns: a row `i` without one takes the column `j` of the least reduced cost
    `cost_matrix[i, j] - price[j]`, where prices start at 0, and lowers `price[j]` until its second
    choice would be as good; the row that had the column must bid again. After `4 n` bids at most,
    each of the few rows that are left finds a shortest augmenting path, as in
    `base_hungarian_algorithm`, in at most `n` steps of `O(m)`.

    Half precision is computed in float32, integers and booleans in int32 (int64 for int64), which
    is exact as long as `n` times the range of the costs does not overflow. A cost of `inf` (or
    `nan`) forbids a pair: it is used only if nothing else is left. Works under `jit` and `vmap`.

    Args:
      cost_matrix: the costs, real, `[n, m]`.

    Returns:
      The rows and the columns of the pairs, two int32 arrays of shape `[min(n, m)]`, sorted by row.

    Raises:
      ValueError: `cost_matrix` does not have two axes.
      TypeError: `cost_matrix` is complex.

    Source: Jonker and Volgenant, "A Shortest Augmenting Path Algorithm for Dense and Sparse Linear
    Assignment Problems" (Computing 38, 1987), whose "augmenting row reduction" the bids are.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import assignment
      >>> cost = jnp.array([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
      >>> i, j = assignment.hungarian_algorithm(cost)
      >>> print(j, cost[i, j].sum())
      [1 0 2] 5
    """
    return _assign("hungarian_algorithm", cost_matrix, _columns_after_bids)


def base_hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[Array, Array]:
    r"""Assigns rows to columns, one to one, at the least total cost, by augmenting paths alone.

    Every row in turn finds the shortest path, in reduced costs, from itself to a free column,
    alternating between columns and the rows they are assigned to. The rows on this path then change
    their columns. The total cost is that of `hungarian_algorithm`, which is faster.

    Args:
      cost_matrix: the costs, real, `[n, m]`; see `hungarian_algorithm` for their dtypes.

    Returns:
      The rows and the columns of the pairs, two int32 arrays of shape `[min(n, m)]`, sorted by row.

    Raises:
      ValueError: `cost_matrix` does not have two axes.
      TypeError: `cost_matrix` is complex.

    Source: Crouse, "On Implementing 2D Rectangular Assignment Algorithms" (IEEE Transactions on
    Aerospace and Electronic Systems 52, 2016).

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import assignment
      >>> i, j = assignment.base_hungarian_algorithm(jnp.array([[9.0, 1.0, 3.0], [1.0, 0.0, 5.0]]))
      >>> print(i, j)
      [0 1] [1 0]
    """
    return _assign("base_hungarian_algorithm", cost_matrix, _columns)


@compiled_when_concrete
def _columns(costs: Array) -> Array:
    return place_the_rest(augment_all(costs, unmatched(costs)))


@compiled_when_concrete
def _columns_after_bids(costs: Array) -> Array:
    return place_the_rest(augment_all(costs, bid(costs, unmatched(costs))))


def _assign(
    name: str, cost_matrix: ArrayLike, columns_of: Callable[[Array], Array]
) -> tuple[Array, Array]:
    costs = jnp.asarray(cost_matrix)
    if costs.ndim != 2:
        raise ValueError(f"{name}: cost_matrix must have two axes, got the shape {costs.shape}")
    if jnp.iscomplexobj(costs):
        raise TypeError(f"{name}: cost_matrix must be real, got {costs.dtype}")
    tall = costs.shape[0] > costs.shape[1]
    costs = costs.T if tall else costs
    rows = jnp.arange(len(costs), dtype=jnp.int32)
    if len(costs) == 0:
        return rows, rows
    if jnp.issubdtype(costs.dtype, jnp.floating):
        costs = widen(costs)
        costs = jnp.where(jnp.isnan(costs), jnp.inf, costs)
    else:
        costs = costs.astype(jnp.promote_types(costs.dtype, jnp.int32))
    columns = columns_of(costs)
    if tall:
        order = jnp.argsort(columns)
        return columns[order], rows[order]
    return rows, columns
