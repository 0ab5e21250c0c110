"""An auction, in which rows bid for columns: it finds most of a matching at little cost."""

import jax.numpy as jnp
from jax import lax

from gradtx.assignment.matching import FREE, Matching, cheapest, top
from gradtx.engine.base import Array


def bid(costs: Array, matching: Matching) -> Matching:
    """Runs the auction for rows without a column: at most `4 n` bids altogether.

    The limit is there because bids that hardly change a price can continue for very long. A row
    whose best columns are equally good and all taken does not bid; it gets an augmenting path
    later.

    Args:
      costs: the costs, `[n, m]`, `n <= m`.
      matching: the empty matching, where all prices are 0.
    """
    n = len(costs)
    limit = top(costs.dtype)

    def unfinished(carry: tuple[Array, Array, Array, Matching]) -> Array:
        bids, row, _, _ = carry
        return (bids < 4 * n) & (row < n)

    def one(carry: tuple[Array, Array, Array, Matching]) -> tuple[Array, Array, Array, Matching]:
        bids, row, fresh, match = carry
        seen = costs[row] - match.price
        best, column, taken = cheapest(seen, match.row_of)
        second = jnp.min(jnp.where(jnp.arange(len(seen)) == column, limit, seen))
        raised = second - best
        raised = jnp.where(second < limit, raised, 0)
        bidding = (best < limit) & (~taken | (raised > 0))
        loser = jnp.where(bidding & taken, match.row_of[column], FREE)

        match = Matching(
            row_of=match.row_of.at[column].set(jnp.where(bidding, row, match.row_of[column])),
            column_of=match.column_of.at[row]
            .set(jnp.where(bidding, column, FREE))
            # -1 would be the last row
            .at[jnp.where(loser >= 0, loser, n)]
            .set(FREE, mode="drop"),
            price=match.price.at[column].add(jnp.where(bidding, -raised, 0)),
        )
        return bids + 1, jnp.where(loser >= 0, loser, fresh), fresh + (loser < 0), match

    zero = jnp.zeros((), jnp.int32)
    return lax.while_loop(unfinished, one, (zero, zero, zero + 1, matching))[3]
