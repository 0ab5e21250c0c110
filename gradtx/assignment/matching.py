"""Matchings of rows and columns, and the invariant that keeps them the cheapest.

The methods rest on prices. A row that looks for a column sees the reduced costs `c[i, j] - v[j]`.
At all times each matched row has one of the columns that are cheapest for it, and a column without
a row has the price 0, which is the highest. When every row is matched, these two conditions prove
that no other assignment is cheaper.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.engine.base import Array

FREE = -1  # a column without a row, or a row without a column
HOPELESS = -2  # a row for which all columns are forbidden, or taken for good


class Matching(NamedTuple):
    """A matching of rows and columns, and the prices of the columns.

    Attributes:
      row_of: the row that has a column, or -1, `[m]`.
      column_of: the column that a row has, or -1, `[n]`.
      price: the price of each column, `v[j] <= 0`, `[m]`.
    """

    row_of: Array
    column_of: Array
    price: Array


def unmatched(costs: Array) -> Matching:
    """Returns the empty matching, in which all prices are 0.

    Args:
      costs: the costs, `[n, m]`.
    """
    n, m = costs.shape
    return Matching(
        row_of=jnp.full(m, FREE, jnp.int32),
        column_of=jnp.full(n, FREE, jnp.int32),
        price=jnp.zeros(m, costs.dtype),
    )


def top(dtype: DTypeLike) -> float:
    """Returns the upper limit of costs: infinity, or the largest integer.

    Args:
      dtype: the dtype of the costs.
    """
    return jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


def cheapest(cost: Array, row_of: Array) -> tuple[Array, Array, Array]:
    """Finds the least cost, its column, and whether that is taken; of equal ones, a free column.

    The column is a minimum of integers, which compiles to faster code than `argmin` does.

    Args:
      cost: the cost of each column, `[m]`.
      row_of: the row that each column has, or -1, `[m]`.
    """
    m = len(cost)
    least = jnp.min(cost)
    number = jnp.arange(m, dtype=jnp.int32) + jnp.where(row_of >= 0, m, 0).astype(jnp.int32)
    found = jnp.min(jnp.where(cost == least, number, 2 * m))
    return least, found % m, found >= m
