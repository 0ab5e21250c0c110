"""Holding parameters still."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, EmptyState, GradientTransformation
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.masks import flags
from gradtx.engine.paths import is_none
from gradtx.engine.rules import Slots
from gradtx.transforms.masking import masked
from gradtx.transforms.partitioning import partition


@piece
def set_to_zero() -> GradientTransformation:
    """Replaces every update by zero, so that the parameters stay as they are.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.set_to_zero()
      >>> print(tx.update(jnp.ones(2), tx.init(None))[0])
      [0. 0.]
    """
    traits = {"frozen": True}
    return leafwise(EmptyState, None, _zero, integers=True, traits=traits, name="set_to_zero")


def _zero(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    return jnp.zeros_like(g), Slots()


def freeze(mask: Any) -> GradientTransformation:
    """Holds the parameters still where a mask is true; other updates pass by.

    Put behind an optimizer, it leaves that optimizer's state in place for all parameters;
    `selective_transform` does not.

    Args:
      mask: a pytree of booleans, like the parameters or a prefix of them, or a function that makes
        one from a tree like the parameters.

    Raises:
      ValueError: the mask has another structure than the tree; the message names the paths.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.freeze({"w": False, "b": True})
      >>> params = {"w": jnp.ones(1), "b": jnp.ones(1)}
      >>> updates, _ = tx.update(params, tx.init(params))
      >>> print(updates["w"], updates["b"])
      [1.] [0.]
    """
    return masked(set_to_zero(), mask)


def selective_transform(optimizer: Any, *, freeze_mask: Any) -> GradientTransformation:
    """Gives an optimizer the parameters where a mask is false, and holds the others still.

    Frozen parameters cost no state. It is a partition with the labels `"train"` and `"freeze"`.

    Args:
      optimizer: the transformation of the parameters that are trained.
      freeze_mask: a pytree of booleans, like the parameters or a prefix of them, or a function that
        makes one from a tree like the parameters; true where a parameter is frozen.

    Raises:
      ValueError: the mask has another structure than the tree; the message names the paths.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask={"w": False, "b": True})
      >>> params = {"w": jnp.ones(1), "b": jnp.ones(1)}
      >>> updates, _ = tx.update(params, tx.init(params))
      >>> print(updates["w"], updates["b"])
      [-0.1] [0.]
    """

    def labels(tree: Any) -> Any:
        frozen = flags(freeze_mask, tree, "params")
        treedef = jax.tree.structure(tree, is_leaf=is_none)
        return treedef.unflatten("freeze" if flag else "train" for flag in frozen)

    return partition({"train": optimizer, "freeze": set_to_zero()}, labels)
