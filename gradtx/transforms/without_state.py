"""Transformations without a state, made from one function."""

from collections.abc import Callable
from typing import Any

import jax

from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    Params,
    Updates,
    init_empty_state,
)
from gradtx.engine.pipeline import wrapped


def stateless(f: Callable[[Updates, Params | None], Updates]) -> GradientTransformation:
    """Creates a transformation without state from a function of the updates and the parameters.

    Args:
      f: `f(updates, params) -> updates`, over whole pytrees.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> double = gradtx.stateless(lambda u, p: jax.tree.map(lambda x: 2 * x, u))
      >>> print(double.update(jnp.ones(2), double.init(None))[0])
      [2. 2.]
    """

    return of_function(f, "stateless")


def of_function(
    f: Callable[[Updates, Params | None], Updates], name: str
) -> GradientTransformation:
    """Returns `stateless(f)` with a name.

    Args:
      f: `f(updates, params) -> updates`.
      name: the name in error messages.
    """

    def update(
        updates: Updates, state: EmptyState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, EmptyState]:
        del extra
        return f(updates, params), state

    return wrapped(init_empty_state, update, name=name)


def stateless_with_tree_map(f: Callable[[Array, Array | None], Array]) -> GradientTransformation:
    """Creates a transformation without state from a function of one update and one parameter.

    Args:
      f: `f(update, param) -> update`, for one leaf; `param` is `None` if `update` is called without
        params.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> pull = gradtx.stateless_with_tree_map(lambda g, p: g + 0.1 * p)
      >>> print(pull.update(jnp.ones(2), pull.init(None), jnp.ones(2))[0])
      [1.1 1.1]
    """

    def over_tree(updates: Updates, params: Params | None) -> Updates:
        if params is None:
            return jax.tree.map(lambda u: f(u, None), updates)
        return jax.tree.map(f, updates, params)

    return of_function(over_tree, "stateless_with_tree_map")
