"""The rule of KL-Shampoo and KL-SOAP: covariances that minimize a divergence, and their bases."""

import functools

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.engine.base import Array, Scalar
from gradtx.engine.numerics import abs_sq, ema, ratio, value_of
from gradtx.engine.rules import Slots
from gradtx.matrices.bases import Bases, BasisMethod, first_bases, next_bases, without_choice
from gradtx.matrices.blocks import Init, Update, in_blocks
from gradtx.matrices.guard import guarded
from gradtx.matrices.renewal import next_ages, renewed
from gradtx.matrices.sides import next_moment, rotated, rotated_back, sizes, stored_dtype


def fitted_to_divergence(
    b1: Scalar,
    b2: Scalar,
    shampoo_beta: Scalar | None,
    eps: Scalar,
    precondition_frequency: int,
    init_factor: Scalar,
    max_clamp_value: Scalar | None,
    max_dim: int | None,
    block_size: int | None,
    eigenbasis: BasisMethod,
    skip_first: bool,
    stagger: bool,
    statistics_dtype: DTypeLike | None,
    *,
    adam: bool,
) -> tuple[Init, Update]:
    """Returns the rule of `scale_by_kl_shampoo`, or of `scale_by_kl_soap`, whose arguments it has.

    Args:
      adam: whether momentum is divided by the roots of averages of squares in the eigenbases, in
        the slot `nu`, as in KL-SOAP, or else by those of the eigenvalues.

    Returns:
      `init` and `update` for `matrixwise`.
    """
    beta = b2 if shampoo_beta is None else shampoo_beta

    def init(p: Array) -> Slots:
        n, rows, columns = p.shape
        real, dtype = jnp.finfo(p.dtype).dtype, stored_dtype(p, statistics_dtype)
        left, right = sizes(p.shape, max_dim)
        left_basis, right_basis, ranks = first_bases(n, (left, right), dtype)
        slots = Slots(
            mu=jnp.zeros_like(p),
            left=jnp.zeros((n, left, left), dtype),
            right=jnp.zeros((n, right, right), dtype),
            left_basis=left_basis,
            right_basis=right_basis,
            left_values=jnp.full((n, rows), value_of(init_factor), real),
            right_values=jnp.full((n, columns), value_of(init_factor), real),
            ranks=ranks,
            age=jnp.zeros((n,), jnp.int32),
            rejected=jnp.zeros((n,), jnp.int32),
        )
        return Slots(**vars(slots), nu=jnp.zeros(p.shape, real)) if adam else slots

    def averaged(values: Array, new: Array) -> Array:
        """Returns the next average of eigenvalues, not so small that roots exceed the clamp."""
        found = ema(new, values, beta)
        if max_clamp_value is None:
            return found
        side = found.shape[1] * found.shape[2]
        largest = jnp.maximum(10, jnp.minimum(side, value_of(max_clamp_value)))
        return jnp.maximum(found, (1 / largest**2).astype(found.dtype))

    @guarded
    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        n, rows, columns = g.shape
        ql, qr = s.left_basis.astype(g.dtype), s.right_basis.astype(g.dtype)
        left_values, right_values = s.left_values[:, :, None], s.right_values[:, None, :]
        mu = ema(g, s.mu, b1)
        m, here = rotated(ql, mu, qr), rotated(ql, g, qr)
        squares, nu = abs_sq(here), ()
        if adam:
            nu = (without_choice(ema(squares, s.nu, b2), s.ranks, (ql, qr)),)
            u = rotated_back(ql, ratio(m, nu[0], eps), qr)
        else:
            u = rotated_back(ql, ratio(m, left_values * right_values, eps), qr)

        none = jnp.zeros((n, 0, 0), g.dtype)
        # The covariance of one side is that of gradients whitened by the other.
        by_left, by_right = (
            jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0) for x in (left_values, right_values)
        )
        of_left = by_right if not skip_first else jnp.where(step == 0, 1, by_right)
        of_right = by_left if not skip_first else jnp.where(step == 0, 1, by_left)
        right_whitened = rotated(none, g, qr) * jnp.sqrt(of_left).astype(g.dtype)
        left_whitened = rotated(ql, g, none) * jnp.sqrt(of_right).astype(g.dtype)
        left = next_moment(s.left, right_whitened / columns**0.5, 1, beta)
        right = next_moment(s.right, left_whitened / rows**0.5, 2, beta)
        new_left_values = averaged(left_values, jnp.mean(squares * by_right, 2, keepdims=True))
        new_right_values = averaged(right_values, jnp.mean(squares * by_left, 1, keepdims=True))
        new_left_values = without_choice(new_left_values, s.ranks, (ql, qr))
        new_right_values = without_choice(new_right_values, s.ranks, (ql, qr))
        if skip_first:
            moves = step > 0
            u, mu = jnp.where(moves, u, 0), jnp.where(moves, mu, s.mu)
            nu = tuple(jnp.where(moves, x, s.nu) for x in nu)
            new_left_values = jnp.where(moves, new_left_values, left_values)
            new_right_values = jnp.where(moves, new_right_values, right_values)

        bases, bad = renewed(
            functools.partial(next_bases, method=eigenbasis),
            (left, right),
            Bases((ql, qr), s.ranks, (new_left_values, new_right_values, *nu)),
            step,
            precondition_frequency,
            ages=s.age if stagger else None,
        )
        new_left_values, new_right_values, *nu = bases.squares
        return u, Slots(
            mu=mu,
            left=left,
            right=right,
            left_basis=bases.vectors[0],
            right_basis=bases.vectors[1],
            left_values=new_left_values[:, :, 0],
            right_values=new_right_values[:, 0, :],
            ranks=bases.ranks,
            age=next_ages(s.age, step, precondition_frequency) if stagger else s.age,
            rejected=s.rejected + bad,
            **({"nu": nu[0]} if adam else {}),
        )

    return in_blocks(init, update, block_size, ("mu",))
