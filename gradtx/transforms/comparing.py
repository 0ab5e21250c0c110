"""Combining the updates of a transformation with the gradients from which they were made."""

from collections.abc import Callable
from typing import Any

import jax

from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.pipeline import wrapped


def compared(
    inner: TransformationLike, combine: Callable[[Array, Array], Array], name: str
) -> GradientTransformation:
    """Returns a transformation whose updates are combined with its gradients, leaf by leaf.

    The state is that of `inner`.

    Args:
      inner: the transformation.
      combine: `combine(u, g)`, a function of a leaf of its updates and of its gradients, that
        returns the new update in the dtype of `u`.
      name: its name in error messages.
    """
    inner = with_extra_args_support(inner)

    @compiled_when_concrete
    def combined(new: Updates, gradients: Updates) -> Updates:
        return jax.tree.map(combine, new, gradients)

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        new, state = inner.update(updates, state, params, **extra)
        return combined(new, updates), state

    return wrapped(inner.init, update, inner, name=name)
