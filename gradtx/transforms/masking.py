"""Applying a transformation to some of the leaves."""

from typing import NamedTuple

from gradtx.engine.base import GradientTransformation, MaskOrFn
from gradtx.engine.links import Mask
from gradtx.engine.pipeline import Pipeline, pipeline_of
from gradtx.engine.roles import Inner, declared


@declared
class MaskedState(NamedTuple):
    """The state of a masked transformation.

    Attributes:
      inner_state: the transformation's own state, with `MaskedNode()` at the masked leaves.
    """

    inner_state: Inner


def masked(
    inner: GradientTransformation, mask: MaskOrFn, *, mask_compatible_extra_args: bool = False
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
    around = Mask(mask, mask_compatible_extra_args)
    links = tuple(link.narrow(around) for link in pipeline.links)
    return Pipeline(links, MaskedState(pipeline.skeleton)).transformation()
