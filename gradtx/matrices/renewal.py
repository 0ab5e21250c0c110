"""Expensive slots of stacks of matrices that are computed every few steps."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import Array, PyTree, Scalar

T = TypeVar("T")


def renewed(
    compute: Callable[[PyTree, T], T],
    given: PyTree,
    old: T,
    step: Array,
    every: Scalar,
    *,
    ages: Array | None = None,
) -> tuple[T, Array]:
    """Computes slots for some of the matrices of a stack, and keeps the others.

    Without ages all matrices are computed at the steps that are multiples of `every`, from the
    first on. With ages all are computed at the first step, and at every other step the `ceil(n /
    every)` whose values are oldest; so no step costs much more than another. Nothing is computed at
    other steps, and results that are not finite are not stored.

    Args:
      compute: `compute(given, old) -> new` for some of the matrices.
      given: a pytree of arrays `(n, ...)`, from which the slots are computed.
      old: the slots, a pytree of arrays `(n, ...)`.
      step: the number of steps taken.
      every: the number of steps for which a value is kept; with `ages` a Python integer.
      ages: for each matrix the number of steps since its value was computed, `(n,)`, int32.
        Default: `None`.

    Returns:
      The new slots, and for each matrix the number of results that were not finite, 0 or 1, `(n,)`.
    """
    n = jax.tree.leaves(old)[0].shape[0]
    none = jnp.zeros((n,), jnp.int32)

    def of(given: PyTree, old: T) -> tuple[T, Array]:
        new = compute(given, old)
        good = jnp.all(jnp.stack([_finite(x) for x in jax.tree.leaves(new)]), 0)

        def kept(x: Array, y: Array) -> Array:
            return jnp.where(jnp.expand_dims(good, range(1, x.ndim)), x, y).astype(y.dtype)

        return jax.tree.map(kept, new, old), jnp.asarray(~good, jnp.int32)

    def of_oldest(ages: Array) -> tuple[T, Array]:
        count = -(-n // int(every))
        _, places = lax.top_k(ages, count)

        def taken(x: Array) -> Array:
            return x[places]

        part, bad = of(jax.tree.map(taken, given), jax.tree.map(taken, old))
        new = jax.tree.map(lambda x, y: x.at[places].set(y), old, part)
        return new, none.at[places].set(bad)

    if ages is None:
        return lax.cond(step % every == 0, lambda: of(given, old), lambda: (old, none))
    return lax.cond(step == 0, lambda: of(given, old), lambda: of_oldest(ages))


def next_ages(ages: Array, step: Array, every: int) -> Array:
    """Returns the ages after a step of `renewed`.

    Args:
      ages: the ages before it, `(n,)`.
      step: the number of steps taken before it.
      every: the number of steps for which a value is kept.
    """
    n = ages.shape[0]
    _, places = lax.top_k(ages, -(-n // every))
    # The first step computes all. Their turns then come in their order in the stack.
    return jnp.where(step == 0, jnp.arange(n, 0, -1), (ages + 1).at[places].set(0)).astype(
        ages.dtype
    )


def _finite(x: Array) -> Array:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.ones(x.shape[:1], bool)
    return jnp.all(jnp.isfinite(x), tuple(range(1, x.ndim)))
