"""Reuse of the loss and gradient with which a line search ended."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, OptState, Params, PyTree, Scalar
from gradtx.engine.concrete import branch


def value_and_grad_from_state(
    value_fn: Callable[..., Array],
) -> Callable[..., tuple[Array, PyTree]]:
    """Returns a `jax.value_and_grad` that reuses value and gradient from a line search's state.

    A line search ends with the loss and the gradient at the parameters that its step leads to. If
    the loss does not change between steps, the next step begins with both, and need not compute
    them again. Before the first step, and where the search has only a part of the gradient (in a
    partition) or no finite loss, both are computed.

    Args:
      value_fn: the loss as a function of the parameters, and perhaps of further arguments.

    Returns:
      `f(params, *args, state=..., **kwargs) -> (value, grad)`, for the state of an optimizer with
      one line search in it.

    Raises:
      ValueError: there is no line search in the state, or it does not keep the gradient.
      KeyError: there are several.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return jnp.sum(p**2)
      >>> tx, p = gradtx.lbfgs(), jnp.array([1.0, 2.0])
      >>> state, value_and_grad = tx.init(p), gradtx.value_and_grad_from_state(loss)
      >>> for _ in range(2):
      ...     value, grad = value_and_grad(p, state=state)
      ...     updates, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=loss)
      ...     p = gradtx.apply_updates(p, updates)
      >>> print(p)
      [0. 0.]
    """

    def value_and_grad(
        params: Params, *args: Any, state: OptState, **kwargs: Any
    ) -> tuple[Array, PyTree]:
        found = list(_searches(state))
        if not found:
            raise ValueError(
                "value_and_grad_from_state: there is no state of a line search in "
                f"{jax.tree.structure(state)}"
            )
        if len(found) > 1:
            names = [type(node).__name__ for node in found]
            raise KeyError(f"value_and_grad_from_state: there are several line searches: {names}")
        (search,) = found
        if search.grad is None:
            raise ValueError(
                "value_and_grad_from_state: the line search does not keep the gradient; make it "
                "with store_grad=True"
            )

        def as_stored(value: Scalar, grad: PyTree) -> tuple[Array, PyTree]:
            of_params = jax.tree.map(lambda g, p: jnp.asarray(g, jnp.result_type(p)), grad, params)
            return jnp.asarray(value, search.value.dtype), of_params

        def compute() -> tuple[Array, PyTree]:
            return as_stored(*jax.value_and_grad(value_fn)(params, *args, **kwargs))

        if jax.tree.structure(search.grad) != jax.tree.structure(params):
            return compute()
        known = jnp.isfinite(search.value)
        return branch(known, lambda: as_stored(search.value, search.grad), compute)

    return value_and_grad


def _searches(node: Any) -> Iterator[Any]:
    """Returns the states of line searches in a state, from the outside in."""
    if {"value", "grad"} <= set(getattr(node, "_fields", ())):
        yield node
    elif isinstance(node, dict):
        for child in node.values():
            yield from _searches(child)
    elif isinstance(node, (tuple, list)):
        for child in node:
            yield from _searches(child)
