"""Applying different transformations to different leaves."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import jax

from gradtx._arguments import checked, require_transformation
from gradtx._roles import Inner, declared
from gradtx.engine.base import (
    GradientTransformation,
    Params,
    PyTree,
    TransformationLike,
    for_tree,
)
from gradtx.engine.equality import Value
from gradtx.engine.made import Freezer, Frozen, Made
from gradtx.engine.masks import Mask, spread
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.pipeline import Pipeline, gather, pipeline_of
from gradtx.transforms.masking import MaskedState


@declared
class PartitionState(NamedTuple):
    """The states of the parts of a partition.

    Attributes:
      inner_states: for each label, the state of its transformation, masked to its leaves.
    """

    inner_states: Inner


@checked
def partition(
    transforms: Mapping[Hashable, TransformationLike],
    param_labels: PyTree | Callable[[Params], PyTree],
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformation:
    """Applies to each leaf the transformation that belongs to its label.

    It is a chain of one `masked` transformation for each label. Each leaf has one label, so that
    the order does not matter, and the parts share sweeps over the leaves.

    Args:
      transforms: a mapping from labels to transformations.
      param_labels: a pytree of labels, like the parameters or a prefix of them, or a function that
        returns one for a tree like the parameters.
      mask_compatible_extra_args: whether extra arguments that are pytrees like the updates are
        masked as well. Default: False, they are passed on whole.

    Raises:
      ValueError: a leaf has a label that is not in `transforms`; the message names the leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.partition(
      ...     {"train": gradtx.sgd(0.1), "freeze": gradtx.set_to_zero()},
      ...     {"w": "train", "b": "freeze"},
      ... )
      >>> params = {"w": jnp.ones(1), "b": jnp.ones(1)}
      >>> updates, _ = tx.update(params, tx.init(params))
      >>> print(updates["w"], updates["b"])
      [-0.1] [0.]
    """
    for label, tx in transforms.items():
        require_transformation(tx, f"partition: transforms[{label!r}]")
    return by_labels(transforms, param_labels, "partition", mask_compatible_extra_args)


def by_labels(
    transforms: Mapping[Hashable, TransformationLike],
    param_labels: PyTree | Callable[[Params], PyTree],
    name: str,
    all_trees: bool = False,
) -> GradientTransformation:
    """Returns a partition with a name.

    Args:
      transforms: a mapping from labels to transformations.
      param_labels: the labels, as for `partition`.
      name: the name in error messages.
      all_trees: whether extra arguments that are pytrees like the updates are masked as well.
        Default: False.
    """
    pipelines = [pipeline_of(tx) for tx in transforms.values()]
    links, skeletons = gather(pipelines)
    labels = [x for x, part in zip(transforms, pipelines, strict=True) for _ in part.links]
    known = tuple(transforms)
    masks = {x: Mask(HasLabel(x, param_labels, known), all_trees, x, name) for x in known}
    row = [link.narrow(masks[x]) for link, x in zip(links, labels, strict=True)]
    parts = {label: MaskedState(s) for label, s in zip(transforms, skeletons, strict=True)}
    return Pipeline(tuple(row), PartitionState(parts), name).transformation()


@dataclasses.dataclass(frozen=True, eq=False)
class HasLabel(Value):
    """A mask: the leaves of a label.

    Attributes:
      label: the label.
      labels: a pytree of labels, or a function that returns one.
      known: all labels for which there are transformations.
    """

    label: Hashable
    labels: PyTree | Callable[[Params], PyTree]
    known: tuple[Hashable, ...]

    def __call__(self, tree: PyTree) -> PyTree:
        """Returns a tree of booleans."""
        leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
        labels = for_tree(self.labels, tree, "labels")
        labels = align(treedef, spread(labels, tree), "the labels", tree, "params")
        for i, (found, leaf) in enumerate(zip(labels, leaves, strict=True)):
            if leaf is not None and found not in self.known:
                raise ValueError(
                    f"partition: params{nth_path(tree, i)} has the label {found!r}, which is "
                    f"not among {list(self.known)}"
                )
        return treedef.unflatten([found == self.label for found in labels])

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns its frozen value."""
        return freezer.call(Made(HasLabel, ((self.label, self.labels, self.known), {})))


multi_transform = partition
MultiTransformState = PartitionState
