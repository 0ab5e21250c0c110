"""Freezing parameters."""

from collections.abc import Hashable

import jax
import jax.numpy as jnp

from gradtx._arguments import checked
from gradtx.engine.base import (
    Array,
    EmptyState,
    GradientTransformation,
    MaskOrFn,
    PyTree,
    TransformationLike,
)
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.masks import Mask, flags
from gradtx.engine.paths import is_none
from gradtx.engine.pipeline import named
from gradtx.engine.rules import Slots
from gradtx.transforms.masking import narrow
from gradtx.transforms.partitioning import by_labels


@piece
def set_to_zero() -> GradientTransformation:
    """Replaces every update by zero, so that the parameters don't change.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.set_to_zero()
      >>> print(tx.update(jnp.ones(2), tx.init(None))[0])
      [0. 0.]
    """
    traits = {"frozen": True}
    return leafwise(EmptyState, None, _zero, integers=True, traits=traits, name="set_to_zero")


def _zero(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
    return jnp.zeros_like(g), Slots()


@piece
def freeze(mask: MaskOrFn) -> GradientTransformation:
    """Replaces updates by zero where a mask is true; the others are returned unchanged.

    After an optimizer in a chain, it freezes parameters, and the optimizer still has a state for
    all of them; with `selective_transform` it has none for those that are frozen.

    Args:
      mask: a pytree of booleans, like the parameters or a prefix of them, or a function that
        returns one for a tree like the parameters; true where a parameter is frozen.

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
    return named(narrow(set_to_zero(), Mask(mask)), "freeze")


@checked
def selective_transform(
    optimizer: TransformationLike, *, freeze_mask: MaskOrFn
) -> GradientTransformation:
    """Applies an optimizer where a mask is false, and freezes the other parameters.

    Frozen parameters have no state. It is a partition with the labels `"train"` and `"freeze"`.

    Args:
      optimizer: the transformation of the parameters that are trained.
      freeze_mask: a pytree of booleans, like the parameters or a prefix of them, or a function that
        returns one for a tree like the parameters; true where a parameter is frozen.

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

    def labels(tree: PyTree) -> PyTree:
        frozen = flags(freeze_mask, tree, "params")
        treedef = jax.tree.structure(tree, is_leaf=is_none)
        return treedef.unflatten("freeze" if flag else "train" for flag in frozen)

    parts: dict[Hashable, TransformationLike] = {"train": optimizer, "freeze": set_to_zero()}
    return by_labels(parts, labels, "selective_transform")
