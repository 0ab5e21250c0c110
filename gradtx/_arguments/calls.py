"""The check of the arguments of `update` that is possible before a step."""

from operator import attrgetter
from typing import Any

import jax

from gradtx._arguments.descriptions import name_of

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


def _shapes(leaves: list[Any]) -> list[tuple[int, ...]]:
    try:
        return list(map(_shape, leaves))
    except AttributeError:  # Python numbers are among them
        return [getattr(x, "shape", ()) for x in leaves]


def _path(tree: object, i: int) -> str:
    return jax.tree_util.keystr(jax.tree.flatten_with_path(tree)[0][i][0])
