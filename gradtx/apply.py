"""Adding updates to parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.base import Array, Params, Updates
from gradtx.concrete import compiled_when_concrete, shape_and_dtype
from gradtx.paths import align, is_none, nth_path


def apply_updates(params: Params, updates: Updates) -> Params:
    """Adds updates to parameters, leaf by leaf: `params + updates`, in the parameters' dtypes.

    The sum is taken in the wider of the two dtypes and then rounded once. A `None` in `updates`
    leaves that parameter as it is; a `None` in `params` stays `None`.

    Args:
      params: a pytree of arrays.
      updates: a pytree of the same structure and shapes.

    Returns:
      The new parameters, with the structure and dtypes of `params`.

    Raises:
      ValueError: structures or shapes differ; the message names the leaf.
      TypeError: an integer parameter would get a floating update, which would be rounded.

    Example:
      >>> import jax.numpy as jnp
          >>> import gradtx
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> print(gradtx.apply_updates(params, {"w": jnp.array([0.5, 0.5])})["w"])
      [1.5 2.5]
    """
    return _add_trees(params, updates)


@compiled_when_concrete
def _add_trees(params: Params, updates: Updates) -> Params:
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
    try:
        steps = treedef.flatten_up_to(updates)
    except (ValueError, TypeError, KeyError, AttributeError):
        steps = None
    if steps is None:
        u_def = jax.tree.structure(updates, is_leaf=is_none)
        align(u_def, params, "params", updates)  # raises, and says where they differ
        raise ValueError("apply_updates: params and updates have different structures")
    summed = []
    for i, (p, u) in enumerate(zip(leaves, steps, strict=True)):
        if p is None or u is None:
            summed.append(p)
            continue
        alike = shape_and_dtype(p) == shape_and_dtype(u)
        if not alike:
            _check(params, i, p, u)
        summed.append(lax.add(p, u) if alike else _add_and_round(p, u))
    return treedef.unflatten(summed)


def _check(params: Params, i: int, p: Any, u: Any) -> None:
    if not hasattr(u, "dtype") and not isinstance(u, (int, float, complex)):
        raise ValueError(
            f"apply_updates: params{nth_path(params, i)} is an array, where updates has {u!r}"
        )
    if jnp.shape(p) != jnp.shape(u):
        raise ValueError(
            f"apply_updates: params{nth_path(params, i)} has shape {jnp.shape(p)}, "
            f"its update has shape {jnp.shape(u)}"
        )
    p_type, u_type = jnp.result_type(p), jnp.result_type(u)
    for kind, lost in ((jnp.inexact, "rounded"), (jnp.complexfloating, "made real")):
        if jnp.issubdtype(u_type, kind) and not jnp.issubdtype(p_type, kind):
            raise TypeError(
                f"apply_updates: params{nth_path(params, i)} is {p_type}, its update is {u_type} "
                f"and would be {lost}"
            )


@jax.jit
def _add_and_round(p: Any, u: Any) -> Array:
    p = jnp.asarray(p)
    return jnp.asarray(p + u, p.dtype)
