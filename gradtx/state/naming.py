"""Names for the arrays in a state that stay when the optimizer around them changes.

A name is made of what an array is, not of where it stands: the piece whose state holds it, the
field, and the path of the parameter that it belongs to, as in `scale_by_adam/mu/layer/kernel`. The
pieces before it in a chain, a mask or a guard around it, are not in the name. What is:

- a piece is called by its class: `ScaleByAdamState` makes `scale_by_adam`; optax's classes too, so
  that its states have the same names;
- labels of a partition and names of a `named_chain` come before it, `slow/scale_by_adam/...`;
- so does the field of a wrapper that holds a state beside that of what it wraps, as `adv_state`
  (see `Told` in `gradtx.engine.roles`);
- the second piece of one name is called `trace#2`.

What belongs to no piece, in states that are bare arrays or dicts of them, is called by its keys.
"""

from typing import Any

import jax

from gradtx.engine.base import OptState
from gradtx.tree.walking import parts, path_name

VERSION = "version"
"""A name that no leaf has: what is saved beside the leaves to tell who wrote them."""


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
