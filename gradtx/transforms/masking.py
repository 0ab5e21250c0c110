"""Applying a transformation to some of the leaves."""

from typing import NamedTuple

from gradtx._arguments import checked
from gradtx._roles import Inner, declared
from gradtx.engine.base import GradientTransformation, MaskOrFn, TransformationLike
from gradtx.engine.masks import Mask
from gradtx.engine.pipeline import Pipeline, pipeline_of


@declared
class MaskedState(NamedTuple):
    """The state of a masked transformation.

    Attributes:
      inner_state: the transformation's own state, with `MaskedNode()` at the masked leaves.
    """

    inner_state: Inner


@checked
def masked(
    inner: TransformationLike, mask: MaskOrFn, *, mask_compatible_extra_args: bool = False
) -> GradientTransformation:
    """Applies a transformation to the leaves where a mask is true; the others are left unchanged.

    Masked leaves have no state. Their update remains the *gradient*: to freeze parameters, chain
    `masked(set_to_zero(), ...)` with the opposite mask, or use `partition`.

    Extra arguments that measure the loss are handled as follows. `grad` is masked like the updates.
    `value_fn`, `obj_fn` and `grad_fn` become functions of the leaves that the transformation sees,
    with the masked parameters fixed at their present values.

    Args:
      inner: the transformation.
      mask: a pytree of booleans, like the parameters or a prefix of them, or a function that
        returns one for a tree like the parameters.
      mask_compatible_extra_args: whether extra arguments that are pytrees like the updates are
        masked as well. Default: False, they are passed on whole.

    Raises:
      ValueError: the mask and the parameters differ in structure; the message names the paths.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.masked(gradtx.scale(-1.0), {"w": True, "b": False})
      >>> params = {"w": jnp.ones(1), "b": jnp.ones(1)}
      >>> updates, _ = tx.update(params, tx.init(params))
      >>> print(updates["w"], updates["b"])
      [-1.] [1.]
    """
    return narrow(inner, Mask(mask, mask_compatible_extra_args, name="masked"))


def narrow(inner: TransformationLike, mask: Mask) -> GradientTransformation:
    """Returns a transformation with a mask around it.

    Args:
      inner: the transformation.
      mask: the mask, with the name that error messages begin with.
    """
    pipeline = pipeline_of(inner)
    links = tuple(link.narrow(mask) for link in pipeline.links)
    return Pipeline(links, MaskedState(pipeline.skeleton)).transformation()
