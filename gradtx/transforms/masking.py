"""Applying a transformation to some of the leaves."""

from typing import Any, NamedTuple

import jax

from gradtx.base import GradientTransformation, Params, Updates
from gradtx.paths import is_none
from gradtx.pipeline import Pipeline, pipeline_of
from gradtx.rules import MaskedNode, Rule, flags


class MaskedState(NamedTuple):
    """The state of a masked transformation.

    Attributes:
      inner_state: the transformation's own state, with `MaskedNode()` at the masked leaves.
    """

    inner_state: Any


def masked(
    inner: Any, mask: Any, *, mask_compatible_extra_args: bool = False
) -> GradientTransformation:
    """Applies a transformation to the leaves where a mask is true; the others pass by unchanged.

    Masked leaves cost no state. Mind that they keep their *gradient* as their update: to hold
    parameters still, follow with `set_to_zero` on the opposite mask, or use `partition`.

    Args:
      inner: the transformation.
      mask: a pytree of booleans, like the parameters or a prefix of them, or a function that makes
        one from a tree like the parameters.
      mask_compatible_extra_args: whether extra arguments that are trees like the updates are
        masked as well. Default: they are passed on whole.

    Raises:
      ValueError: the mask has another structure than the tree; the message names the paths.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.masked(gradtx.scale(-1.0), {"w": True, "b": False})
      >>> params = {"w": jnp.ones(1), "b": jnp.ones(1)}
      >>> updates, _ = tx.update(params, tx.init(params))
      >>> print(updates["w"], updates["b"])
      [-1.] [1.]
    """
    pipeline = pipeline_of(inner)
    rules = [link for link in pipeline.links if isinstance(link, Rule)]
    if len(rules) == len(pipeline.links):
        narrowed = tuple(rule._replace(masks=(*rule.masks, mask)) for rule in rules)
        return Pipeline(narrowed, MaskedState(pipeline.skeleton)).transformation()
    # A part couples leaves, so the tree that it sees must lack the masked ones.
    return _masked_tree(pipeline.transformation(), mask, mask_compatible_extra_args)


def _masked_tree(
    inner: GradientTransformation, mask: Any, mask_extra: bool
) -> GradientTransformation:
    def hide(tree: Any, keep: list[bool]) -> Any:
        treedef = jax.tree.structure(tree, is_leaf=is_none)
        leaves = jax.tree.leaves(tree, is_leaf=is_none)
        return treedef.unflatten(
            leaf if k or leaf is None else MaskedNode()
            for leaf, k in zip(leaves, keep, strict=True)
        )

    def init(params: Params) -> MaskedState:
        return MaskedState(inner.init(hide(params, flags(mask, params, "params"))))

    def update(
        updates: Updates, state: MaskedState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MaskedState]:
        keep = flags(mask, updates, "updates")
        treedef = jax.tree.structure(updates, is_leaf=is_none)
        if mask_extra:
            extra = {
                name: hide(value, keep)
                if jax.tree.structure(value, is_leaf=is_none) == treedef
                else value
                for name, value in extra.items()
            }
        seen = None if params is None else hide(params, keep)
        new, inner_state = inner.update(hide(updates, keep), state.inner_state, seen, **extra)
        # A masked leaf is a node without leaves in `new`; `updates` still has its place.
        pairs = zip(
            jax.tree.leaves(updates, is_leaf=is_none), treedef.flatten_up_to(new), strict=True
        )
        merged = [old if isinstance(n, MaskedNode) else n for old, n in pairs]
        return treedef.unflatten(merged), MaskedState(inner_state)

    return GradientTransformation(init, update)
