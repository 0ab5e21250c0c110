"""Shortest augmenting paths: a row gets a column, and others change theirs, at the least cost."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx.assignment.matching import FREE, HOPELESS, Matching, cheapest, top
from gradtx.engine.base import Array


def augment_all(costs: Array, matching: Matching) -> Matching:
    """Finds a shortest augmenting path for every row that has no column.

    Args:
      costs: the costs, `[n, m]`, `n <= m`.
      matching: one in which each matched row has a column that is cheapest for it.
    """

    def some_row_waits(match: Matching) -> Array:
        return jnp.any(match.column_of == FREE)

    def next_row(match: Matching) -> Matching:
        return augment(costs, match, jnp.argmax(match.column_of == FREE).astype(jnp.int32))

    return lax.while_loop(some_row_waits, next_row, matching)


class Search(NamedTuple):
    """Dijkstra's search for the shortest path from one row to a free column.

    Attributes:
      distance: the length of the shortest path known to each column, `[m]`.
      before: the last row on that path, `[m]`.
      settled: whether nothing shorter can come, `[m]`.
      length: the distance of the nearest column that is not settled.
      column: that column; a free one if several are as near.
      taken: whether it has a row.
    """

    distance: Array
    before: Array
    settled: Array
    length: Array
    column: Array
    taken: Array


def augment(costs: Array, match: Matching, start: Array) -> Matching:
    """Assigns a column to one row by moving the rows on a shortest path.

    Args:
      costs: the costs, `[n, m]`, `n <= m`.
      match: the matching so far.
      start: the row.
    """
    limit = top(costs.dtype)

    def nearest(distance: Array, before: Array, settled: Array) -> Search:
        unsettled = jnp.where(settled, limit, distance)
        return Search(distance, before, settled, *cheapest(unsettled, match.row_of))

    def searching(s: Search) -> Array:
        return s.taken & (s.length < limit)

    def settle(s: Search) -> Search:
        row = match.row_of[s.column]
        settled = s.settled | (jnp.arange(len(s.settled)) == s.column)
        seen = costs[row] - match.price
        # the row's own column is its cheapest; the distance to others is the difference in cost
        distance = s.length + (seen - seen[s.column])
        shorter = (distance < s.distance) & ~settled
        return nearest(
            jnp.where(shorter, distance, s.distance), jnp.where(shorter, row, s.before), settled
        )

    begin = nearest(
        costs[start] - match.price,
        jnp.broadcast_to(start, match.row_of.shape),
        jnp.zeros(match.row_of.shape, bool),
    )
    end = lax.while_loop(searching, settle, begin)
    found = end.length < limit
    cut = jnp.where(end.settled & found, end.distance - end.length, 0)

    def on_the_path(carry: tuple[Array, Array, Matching]) -> Array:
        return carry[0] != FREE

    def move(carry: tuple[Array, Array, Matching]) -> tuple[Array, Array, Matching]:
        column, _, match = carry
        row = end.before[column]
        left = match.column_of[row]  # FREE for the row that the path starts from
        match = match._replace(
            row_of=match.row_of.at[column].set(row), column_of=match.column_of.at[row].set(column)
        )
        return left, row, match

    match = match._replace(price=match.price + cut)
    column = jnp.where(found, end.column, FREE)
    _, _, moved = lax.while_loop(on_the_path, move, (column, start, match))
    given_up = moved.column_of.at[start].set(jnp.where(found, moved.column_of[start], HOPELESS))
    return moved._replace(column_of=given_up)


def place_the_rest(match: Matching) -> Array:
    """Assigns the free columns, in their order, to the rows that found none.

    Args:
      match: the final matching.

    Returns:
      The column of each row, `[n]`.
    """
    free_first = jnp.argsort(match.row_of >= 0).astype(jnp.int32)
    hopeless = match.column_of < 0
    return jnp.where(hopeless, free_first[jnp.cumsum(hopeless) - 1], match.column_of)
