"""A guard of a rule's slots against gradients that are not finite."""

from collections.abc import Callable

import jax.numpy as jnp

from gradtx.engine.base import Array
from gradtx.engine.numerics import abs_sq
from gradtx.engine.rules import Slots
from gradtx.engine.scalars import finished


def guarded(update: Callable[..., tuple[Array, Slots]]) -> Callable[..., tuple[Array, Slots]]:
    """Decorates a rule for stacks of matrices: bad gradients do not reach its slots.

    A matrix whose sum of squares is not finite counts as zero, and as one in the slot `rejected`,
    `(n,)`. Its elements that are not finite themselves are returned unchanged, so that whatever
    looks for them still finds them. The rule is not called for matrices without elements.

    Args:
      update: the rule, as for `matrixwise`. It adds what it rejects itself to `rejected`.
    """

    def rule(g: Array, s: Slots, step: Array, p: Array | None) -> tuple[Array, Slots]:
        if g.size == 0:
            beside = {"rng_key", *(name for name, x in vars(s).items() if jnp.ndim(x) == 0)}
            return g, Slots(**{name: x for name, x in vars(s).items() if name not in beside})
        good = jnp.isfinite(jnp.sum(abs_sq(g), (1, 2)))
        u, new = update(jnp.where(good[:, None, None], g, 0), s, step, p)
        slots = dict(vars(new))
        slots["rejected"] = finished(slots["rejected"] + ~good)
        return jnp.where(jnp.isfinite(g), u, g), Slots(**slots)

    return rule
