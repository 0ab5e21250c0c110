"""Applying a transformation to some of the leaves."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gradtx.engine.base import GradientTransformation, OptState, Params, Updates
from gradtx.engine.paths import is_none
from gradtx.engine.pipeline import Link, Pipeline, Wrapped, pipeline_of
from gradtx.engine.roles import Inner, declared
from gradtx.engine.rules import Coupled, MaskedNode, Rule, flags

MaskOrFn = Any
"""A pytree of booleans, or a function that makes one from a tree like the parameters."""


@declared
class MaskedState(NamedTuple):
    """The state of a masked transformation.

    Attributes:
      inner_state: the transformation's own state, with `MaskedNode()` at the masked leaves.
    """

    inner_state: Inner


def masked(
    inner: Any, mask: Any, *, mask_compatible_extra_args: bool = False
) -> GradientTransformation:
    """Applies a transformation to the leaves where a mask is true; the others pass by unchanged.

    Masked leaves cost no state. Mind that they keep their *gradient* as their update: to hold
    parameters still, follow with `set_to_zero` on the opposite mask, or use `partition`.

    Of the extra arguments that measure the loss, `grad` is masked like the updates, and `value_fn`,
    `obj_fn` and `grad_fn` get all parameters, of which those that are masked are the caller's: the
    loss is measured along the leaves that the transformation moves.

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
    links = tuple(_narrow(link, mask, mask_compatible_extra_args) for link in pipeline.links)
    return Pipeline(links, MaskedState(pipeline.skeleton)).transformation()


def _narrow(link: Link, mask: Any, mask_extra: bool) -> Link:
    """Narrows one link of a chain to the leaves where a mask is true."""
    if isinstance(link, Rule):
        return link._replace(masks=(*link.masks, mask))
    if isinstance(link, Coupled) and link.narrow is not None:
        return link.narrow(mask)._replace(owner=link.owner, masks=(*link.masks, mask))
    # It couples leaves, so the trees that it sees must lack the masked ones.
    init, update = _hidden(link, mask, mask_extra)
    if isinstance(link, Coupled):
        return link._replace(init=init, update=update, masks=(*link.masks, mask))
    if isinstance(link, Wrapped):
        return link._replace(init=init, update=update, masks=(*link.masks, mask))
    return Wrapped(init, update, link, (mask,))


def _hidden(inner: Any, mask: Any, mask_extra: bool) -> tuple[Callable, Callable]:
    def init(params: Params) -> OptState:
        return inner.init(_hide(params, flags(mask, params, "params")))

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        keep = flags(mask, updates, "updates")
        treedef = jax.tree.structure(updates, is_leaf=is_none)
        # The gradient is a tree like the updates by its meaning, and what measures the loss moves
        # only the leaves that it sees.
        for name, value in extra.items():
            is_like = jax.tree.structure(value, is_leaf=is_none) == treedef
            if is_like and (mask_extra or name == "grad"):
                extra[name] = _hide(value, keep)
            elif name in ("value_fn", "obj_fn") and value is not None and params is not None:
                extra[name] = _with_the_others(value, params)
            elif name == "grad_fn" and value is not None and params is not None:
                extra[name] = _of_the_seen(_with_the_others(value, params), keep)
        seen = None if params is None else _hide(params, keep)
        new, state = inner.update(_hide(updates, keep), state, seen, **extra)
        return _merge(updates, new), state

    return init, update


def _hide(tree: Any, keep: list[bool]) -> Any:
    """Puts `MaskedNode()`, which has no leaves, in the place of the leaves not to be seen."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    return treedef.unflatten(
        leaf if k or leaf is None else MaskedNode() for leaf, k in zip(leaves, keep, strict=True)
    )


def _merge(whole: Any, part: Any) -> Any:
    """Fills the places of a tree that are masked with the leaves of the whole one."""
    leaves, treedef = jax.tree.flatten(whole, is_leaf=is_none)
    pairs = zip(leaves, treedef.flatten_up_to(part), strict=True)
    return treedef.unflatten([old if isinstance(n, MaskedNode) else n for old, n in pairs])


def _with_the_others(value_fn: Callable[..., Any], params: Params) -> Callable[..., Any]:
    """Makes a loss of all parameters one of those that are not masked; the others stand still."""

    @functools.wraps(value_fn)
    def of_part(part: Params, *args: Any, **kwargs: Any) -> Any:
        return value_fn(_merge(params, part), *args, **kwargs)

    return of_part


def _of_the_seen(grad_fn: Callable[..., Any], keep: list[bool]) -> Callable[..., Any]:
    """Makes the gradient of all parameters that of those that are not masked."""

    @functools.wraps(grad_fn)
    def of_part(part: Params, *args: Any, **kwargs: Any) -> Any:
        return _hide(grad_fn(part, *args, **kwargs), keep)

    return of_part
