"""Checks of step counts that come from files or callers."""

from typing import Any

import jax
import numpy as np

from gradtx.engine.base import OptState
from gradtx.state.belonging import roles


def step_count(value: Any, name: str) -> np.int32:
    """Returns a number of steps as an int32, as states store it.

    Args:
      value: the number, an integer or a floating-point number, or an array of one.
      name: its name, for messages.

    Raises:
      ValueError: it is not a whole number from 0 to 2**31 - 1.

    Example:
      >>> from gradtx.state.counts import step_count
      >>> step_count(5.0, "count")
      np.int32(5)
      >>> step_count(5.5, "count")
      Traceback (most recent call last):
      ...
      ValueError: count must be a whole number from 0 to 2147483647, got 5.5
    """
    array = np.asarray(value)
    if array.size == 1 and array.dtype.kind in "iuf":
        number = array.item()
        if 0 <= number < 2**31 and number == int(number):
            return np.int32(number)
    shown = str(value) if array.dtype.kind in "iuf" else repr(value)
    raise ValueError(f"{name} must be a whole number from 0 to {2**31 - 1}, got {shown[:60]}")


def check_counts(state: OptState) -> None:
    """Raises an error if a count in a state is negative.

    Args:
      state: the state of an optimizer, or any pytree that contains one. Arrays of which only other
        processes have some part are not checked.

    Raises:
      ValueError: a count is negative; the message has its name.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.state.counts import check_counts
      >>> state = gradtx.adam(0.1).init(jnp.ones(2))
      >>> check_counts(gradtx.tree.set(state, count=jnp.int32(-5)))
      Traceback (most recent call last):
      ...
      ValueError: scale_by_adam/count must be at least 0, got -5
    """
    for role, leaf in zip(jax.tree.leaves(roles(state)), jax.tree.leaves(state), strict=True):
        counts = role.kind == "count" and is_at_hand(leaf)
        if counts and (least := np.min(np.asarray(leaf), initial=0)) < 0:
            raise ValueError(f"{role.name} must be at least 0, got {least}")


def is_at_hand(leaf: Any) -> bool:
    """Returns whether this process has all values of a leaf.

    Args:
      leaf: a leaf of a state, or its shape and dtype.
    """
    if isinstance(leaf, jax.Array):
        return leaf.is_fully_addressable or leaf.is_fully_replicated
    return isinstance(leaf, (np.ndarray, np.generic, int))
