"""Names for the arrays in a state that stay when the optimizer around them changes.

A name is made of what an array is, not of where it stands: the piece whose state holds it, the
field, and the path of the parameter that it belongs to, as in `scale_by_adam/mu/layer/kernel`. The
pieces before it in a chain, a mask or a guard around it, are not in the name. What is:

- a piece is called by its class: `ScaleByAdamState` makes `scale_by_adam`; optax's classes too, so
  that its states have the same names;
- labels of a partition and names of a `named_chain` come before it, `slow/scale_by_adam/...`;
- so does the field of a wrapper that holds a state beside that of what it wraps, as `adv_state`;
- the second piece of one name is called `trace#2`.

What belongs to no piece, in states that are bare arrays or dicts of them, is called by its keys.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from gradtx.engine.base import OptState

Names = tuple[str, ...]

WRAPPED = {
    *("inner_state", "inner_states", "inner_opt_state", "base_optimizer_state"),
    *("opt_state", "fast_state", "rate"),
}
"""The fields of wrappers that hold the state of what is wrapped: they are not in the names."""

PIECES = {
    "ApplyEvery": "apply_every",
    "GaLoreState": "galore",
    "ReduceLROnPlateauState": "reduce_on_plateau",
}
"""The pieces whose classes are not called after them."""

VERSION = "version"
"""A name that no leaf has: what is saved beside the leaves to tell who wrote them."""


class Part(NamedTuple):
    """A field of a state, and where it stands.

    Attributes:
      scope: the labels, names and fields that lead to the piece.
      piece: the name of the piece; empty for what belongs to none.
      field: the name of the field; empty for what belongs to no piece.
      value: the array, or the tree of arrays.
      around: the states that the field is in, from the outermost to its own, each with its scope.
    """

    scope: Names
    piece: str
    field: str
    value: Any
    around: tuple[tuple[Names, Any], ...]


def parts(state: OptState) -> list[Part]:
    """Gives the fields that hold the arrays of a state, in the order of `jax.tree.leaves`.

    Args:
      state: any pytree that holds states of optimizers, gradtx's or optax's.
    """
    return list(_walk(state, (), Counter()))


def named_leaves(state: OptState) -> list[tuple[str, Any]]:
    """Gives every leaf of a state with its name, in the order of `jax.tree.leaves`.

    Args:
      state: any pytree that holds states of optimizers, gradtx's or optax's.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.state.naming import named_leaves
      >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1))
      >>> for name, leaf in named_leaves(tx.init({"w": jnp.ones(2)})):
      ...     print(name, leaf.shape)
      scale_by_adam/count ()
      scale_by_adam/mu/w (2,)
      scale_by_adam/nu/w (2,)
      scale_by_learning_rate/count ()
      scale_by_learning_rate/learning_rate ()
    """
    found = [
        ("/".join(filter(None, (*part.scope, part.piece, part.field, path_name(path)))), leaf)
        for part in parts(state)
        for path, leaf in jax.tree.flatten_with_path(part.value)[0]
    ]
    found = [(name or "array", leaf) for name, leaf in found]
    names = _unique([name for name, _ in found])
    return [(name, leaf) for name, (_, leaf) in zip(names, found, strict=True)]


def key_name(key: Any) -> str:
    """Writes one of JAX's keys as a part of a name."""
    for field in ("key", "name", "idx"):
        if hasattr(key, field):
            return str(getattr(key, field))
    return str(key)


def path_name(path: Any) -> str:
    """Writes a path of JAX's keys as a name: `layer/kernel`, `blocks/0/bias`."""
    return "/".join(map(key_name, path))


def is_state(node: Any) -> bool:
    """Says whether a node is the state of a piece: a class whose name says so."""
    named = hasattr(node, "_fields") or dataclasses.is_dataclass(node)
    called = type(node).__name__
    return named and (called.endswith("State") or called in PIECES)


def holds_states(node: Any) -> bool:
    """Says whether a node is the state of a piece, or has one somewhere below it."""
    if is_state(node):
        return True
    return any(map(is_state, jax.tree.leaves(node, is_leaf=is_state)))


def _walk(node: Any, names: Names, pieces: Counter[Any], around: tuple = ()) -> Iterator[Part]:
    """Goes through a node that stands for itself, or holds states that do."""
    if not holds_states(node):
        yield Part(names, "", "", node, around)
    elif not is_state(node):
        for key, child in _children(node):
            part = isinstance(key, jax.tree_util.SequenceKey) and holds_states(child)
            yield from _walk(child, names if part else (*names, key_name(key)), pieces, around)
    else:
        piece, around = "", (*around, (names, node))
        for key, child in _children(node):
            field = key_name(key)
            if holds_states(child):
                inside = names if field in WRAPPED else (*names, field)
                yield from _walk(child, inside, pieces, around)
                continue
            piece = piece or _numbered(_called(node), pieces, names)
            yield Part(names, piece, field, child, around)


def _children(node: Any) -> list[tuple[Any, Any]]:
    flat, _ = jax.tree.flatten_with_path(node, is_leaf=lambda x: x is not node)
    return [(path[0], child) for path, child in flat if path]


def _called(state: Any) -> str:
    if type(state).__name__ in PIECES:
        return PIECES[type(state).__name__]
    words = type(state).__name__.removesuffix("State")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=By)(?=[A-Z])", "_", words).lower()


def _numbered(name: str, taken: Counter[Any], within: Names) -> str:
    taken[within, name] += 1
    return name if taken[within, name] == 1 else f"{name}#{taken[within, name]}"


def _unique(names: list[str]) -> list[str]:
    """Numbers names that stand more than once, as no other is called."""
    known, given = set(names), {VERSION: None}
    for name in names:
        new, number = name, 1
        while new in given or (number > 1 and new in known):
            number += 1
            new = f"{name}#{number}"
        given[new] = None
    return list(given)[1:]
