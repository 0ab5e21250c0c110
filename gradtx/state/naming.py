"""Names for the arrays of a state that don't change when the optimizer around them does.

A name consists of the piece whose state has the array, the field, and the path of the parameter to
which it belongs, as in `scale_by_adam/mu/layer/kernel`. It does not depend on the position in a
chain, nor on a mask or guard around the piece:

- a piece is named after its class: `scale_by_adam` for `ScaleByAdamState`, also for optax's
  classes, so that its states have the same names;
- labels of a partition and names of a `named_chain` come first: `slow/scale_by_adam/...`;
- so does the field of a wrapper's additional state, such as `adv_state` (see `Told` in
  `gradtx._roles`);
- the second piece of the same name is named `trace#2`.

Arrays that belong to no piece, in states that are bare arrays or dicts of them, are named by their
keys.
"""

from typing import Any

import jax

from gradtx.engine.base import OptState
from gradtx.tree.walking import parts, path_name

VERSION = "version"
"""The name of the version, which is saved with the leaves; no leaf has this name."""


def named_leaves(state: OptState) -> list[tuple[str, Any]]:
    """Returns every leaf of a state with its name, in the order of `jax.tree.leaves`.

    Args:
      state: any pytree with states of optimizers of gradtx or optax.

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
    """Adds numbers to names that occur more than once, so that all are different."""
    known, given = set(names), {VERSION: None}
    for name in names:
        new, number = name, 1
        while new in given or (number > 1 and new in known):
            number += 1
            new = f"{name}#{number}"
        given[new] = None
    return list(given)[1:]
