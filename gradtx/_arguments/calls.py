"""The check of the arguments of `update` that is possible before a step."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx._arguments.descriptions import name_of
from gradtx._arguments.ranges import NOT_NEGATIVE

_shape = attrgetter("shape")


def misfit(updates: object, params: object) -> Exception | None:
    """Returns an error if the updates do not fit the parameters, or else `None`.

    An update may have more axes than its parameter, as gradients of single examples have.

    Args:
      updates: the updates.
      params: the parameters, or `None`.
    """
    if callable(updates) and jax.tree.structure(updates) == jax.tree.structure(0):
        told = f"updates is the function {name_of(updates)}; give jax.grad(loss)(params)"
        return TypeError(told)
    if params is None:
        return None
    if updates is None and jax.tree.structure(params) != jax.tree.structure(0):
        return TypeError("updates is None; give the gradients, jax.grad(loss)(params)")
    leaves, others = jax.tree.leaves(updates), jax.tree.leaves(params)
    if len(leaves) != len(others) or _shapes(leaves) == _shapes(others):
        return None
    for i, (g, p) in enumerate(zip(leaves, others, strict=True)):
        mine, other = getattr(g, "shape", ()), getattr(p, "shape", ())
        if mine != other and len(mine) <= len(other):
            where, at = (_path(tree, i) for tree in (updates, params))
            return ValueError(f"updates{where} has shape {mine}, but params{at} has shape {other}")
    return None


def negative(extra: Mapping[str, Any], names: Sequence[str]) -> Exception | None:
    """Returns an error if an extra argument that must not be negative is, or else `None`.

    Args:
      extra: the extra arguments; traced ones, and what is no number, are not examined.
      names: the names of those that must be finite and not negative.
    """
    for name in names:
        x = extra.get(name)
        if x is None or isinstance(x, (Tracer, str)) or jnp.shape(x) or jnp.iscomplexobj(x):
            continue
        if not NOT_NEGATIVE.has(float(x)):
            return ValueError(
                f"{name} must {NOT_NEGATIVE.told}, got {x}; give 0 to leave the update out"
            )
    return None


def _shapes(leaves: list[Any]) -> list[tuple[int, ...]]:
    try:
        return list(map(_shape, leaves))
    except AttributeError:  # Python numbers are among them
        return [getattr(x, "shape", ()) for x in leaves]


def _path(tree: object, i: int) -> str:
    return jax.tree_util.keystr(jax.tree.flatten_with_path(tree)[0][i][0])
