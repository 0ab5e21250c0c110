"""Adam on low-rank projections of stacks of matrices, and what scales gradients by it."""

from collections.abc import Callable

import jax.numpy as jnp

from gradtx.engine.base import Array, Scalar
from gradtx.engine.numerics import abs_sq, ema, over, ratio, value_of
from gradtx.engine.rules import Slots
from gradtx.matrices.sides import AXES, product
from gradtx.tree.moments import gathered_weight, step_number
from gradtx.tree.norms import norms

MOMENTS = ("mu", "nu")
"""The slots that are transposed with the matrices, so that shapes tell tall from wide ones."""


def on_wide(update: Callable[..., tuple[Array, Slots]]) -> Callable[..., tuple[Array, Slots]]:
    """Decorates a rule for matrices with no more rows than columns: it is one for all matrices.

    Args:
      update: the rule, as for `matrixwise`.
    """

    def turned(slots: Slots) -> Slots:
        return Slots(**{name: x.mT if name in MOMENTS else x for name, x in vars(slots).items()})

    def rule(g: Array, s: Slots, step: Array, p: Array | None) -> tuple[Array, Slots]:
        if g.shape[1] <= g.shape[2]:
            return update(g, s, step, p)
        u, new = update(g.mT, turned(s), step, p)
        return u.mT, turned(new)

    return rule


def first_moments(p: Array, rank: int) -> dict[str, Array]:
    """Returns the first slots of Adam on projections, and a count of bad gradients.

    Args:
      p: matrices `(n, rows, columns)`.
      rank: the length of the shorter side after the projection, at most that before it.
    """
    n, rows, columns = p.shape
    real, shorter = jnp.finfo(p.dtype).dtype, min(rows, columns)
    rank = min(rank, shorter)
    shape = (n, rows, rank) if rows > columns else (n, rank, columns)
    return {
        "mu": jnp.zeros(shape, p.dtype),
        "nu": jnp.zeros(shape, real),
        "projector": jnp.zeros((n, shorter, rank), p.dtype) + jnp.eye(shorter, rank, dtype=p.dtype),
        "norm": jnp.zeros((n,), real),
        "rejected": jnp.zeros((n,), jnp.int32),
    }


def weights_of_moments(b1: Scalar, b2: Scalar, step: Array) -> dict[str, Scalar]:
    """Returns the corrections of the moments of a step, as scalars of `matrixwise`."""
    t = step_number(step)
    return {"of_mu": gathered_weight(b1, t), "of_nu": gathered_weight(b2, t)}


def adam_of(
    r: Array, s: Slots, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, dict[str, Array]]:
    """Returns the direction of Adam for projected gradients, and the new moments.

    Args:
      r: the projected gradients.
      s: the slots, with those of `first_moments` and `weights_of_moments`.
      b1: decay rate of the average of gradients.
      b2: decay rate of the average of squares.
      eps: added to the root.
    """
    mu, nu = ema(r, s.mu, b1), ema(abs_sq(r), s.nu, b2)
    return ratio(over(mu, s.of_mu), over(nu, s.of_nu), eps), {"mu": mu, "nu": nu}


def into(projector: Array, g: Array) -> Array:
    """Returns `projector.H @ g`."""
    return product(projector.mT.conj(), g)


def growth(u: Array, r: Array, axes: tuple[int, ...]) -> Array:
    """Returns the ratio of the norms of two stacks along axes, and 0 where the second is 0."""
    above, below = norms(u, r, axis=axes)
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0).astype(u.dtype)


def limited(u: Array, last: Array, gamma: Scalar | None) -> tuple[Array, Array]:
    """Limits the growth of the norms of matrices from step to step.

    Args:
      u: the matrices.
      last: their norms at the last step, `(n,)`, or 0, with which they are not limited.
      gamma: the largest factor by which a norm grows; `None` for no limit.

    Returns:
      The matrices, and their norms.
    """
    (norm,) = norms(u, axis=AXES)
    norm = norm[:, 0, 0]
    if gamma is None:
        return u, norm
    most = value_of(gamma) * last
    grows = (last > 0) & (norm > most)
    factor = jnp.where(grows, most / jnp.where(grows, norm, 1), 1)
    return u * factor[:, None, None].astype(u.dtype), norm * factor
