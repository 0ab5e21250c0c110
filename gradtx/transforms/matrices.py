"""Selection of the leaves that are matrices, and of the axes of their rows and columns."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Literal

import jax

from gradtx._arguments import checked
from gradtx.engine.base import (
    GradientTransformation,
    Params,
    PyTree,
    TransformationLike,
    for_tree,
)
from gradtx.engine.equality import Value
from gradtx.engine.links import Link
from gradtx.engine.made import Freezer, Frozen, Made
from gradtx.engine.paths import is_none
from gradtx.engine.pipeline import with_links
from gradtx.matrices.layout import MatrixAxes, axes_of_leaves
from gradtx.transforms.partitioning import partition
from gradtx.tree.walking import path_name

ARGUMENT = "weight_dimension_numbers"
"""The argument of optimizers by which they get the axes of matrices."""

Axes = PyTree | Callable[[Params], PyTree] | None
"""A pytree of `MatrixAxes`, a function that returns one, or `None` for all leaves of two axes."""

EMBEDDINGS = r"embed|(^|/)w[tp]e(/|$)|(^|/)(cls|mask|pos)_?(token|emb)"
# "output" as a name of the layer itself: blocks of BERT have this name too
OUTPUTS = (
    r"(^|/)(head|\w+_head|lmhead|logits?|readout|classifier|vocab\w*)(/|$)|"
    r"(^|/)output(_layer|_proj|_projection)?/[^/]+$"
)
NO_MATRICES = r"(^|/)(bias|scale|gamma|beta|offset)$"
"""Names of vectors, which have two axes in scanned layers and in attention heads."""

QUERIES = r"(^|/)(query|key|value|qkv|kv|[qkv]|[qkv]_proj|to_[qkv])$"
"""Names of layers with the axes: inputs, heads, and the outputs of a head."""
MERGING = r"(^|/)(out|o|o_proj|to_out|attn_out|out_proj)$"
"""Names of layers with the axes: heads, the inputs of a head, and outputs."""
CONVOLUTIONS = r"conv"


@checked
def hidden_matrices(
    *,
    heads: Literal["fused", "split"] = "fused",
    scanned: str | None = None,
    others: str | None = None,
    embeddings_and_outputs: bool = False,
) -> Callable[[Params], PyTree]:
    """Returns a function that finds the matrices of a model's hidden layers, by names and shapes.

    It is meant for the `weight_dimension_numbers` of optimizers of matrices. Their papers leave
    embeddings and output layers to AdamW: the rows of an embedding are used at very different
    rates, and the columns of an output layer are the classes. Names are those of flax, nnx, Equinox
    and Haiku, in any case:

    - Leaves with fewer than two axes, and those named "bias", "scale", "offset", "gamma" or "beta",
      are no matrices. Neither are those with "embed" anywhere in their path, or with a part "wte"
      or "wpe", or, for output layers, "head", "lm_head", "logits", "readout", "classifier",
      "output" and their like; nor those that match `others`.
    - A leaf named "weight" has the outputs first, as in Equinox and PyTorch, all others have them
      last.
    - Leaves with three or more axes: convolution kernels, in layers with "conv" in their name, are
      one matrix each, with the window and the inputs as rows; in layers named "query", "key",
      "value" or "out" and their like, one of the axes belongs to the heads of attention, see
      `heads`; all other leaves are stacks of matrices, such as experts, whose last two axes are
      rows and columns.

    Args:
      heads: "fused", one matrix for all heads of a layer of attention, or "split", one for each
        head. Default: "fused".
      scanned: a regular expression that is searched for in paths such as `layers/mlp/kernel`, for
        layers that are stacked along the first axis, as by `flax.linen.scan` or `jax.vmap`.
        Default: `None`, there are none.
      others: a regular expression that is searched for in paths, for further leaves that are left
        to the other optimizer. Default: `None`, there are none.
      embeddings_and_outputs: whether embeddings and output layers are matrices, too. Default:
        False.

    Returns:
      A function from a pytree to one of the same structure, with `MatrixAxes` for matrices and
      `None` for all other leaves.

    Raises:
      ValueError: `heads` is unknown, or `scanned` or `others` is no regular expression.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {
      ...     "embed": {"embedding": jnp.zeros((100, 8))},
      ...     "head": {"kernel": jnp.zeros((8, 100))},
      ...     "mlp": {"kernel": jnp.zeros((8, 32)), "bias": jnp.zeros(32)},
      ... }
      >>> for name, axes in gradtx.hidden_matrices()(params).items():
      ...     print(name, axes)
      embed {'embedding': None}
      head {'kernel': None}
      mlp {'bias': None, 'kernel': MatrixAxes(reduction_axis=(0,), output_axis=(1,))}
    """
    for name, pattern in (("scanned", scanned), ("others", others)):
        try:
            re.compile(pattern or "")
        except re.error as e:
            told = f"hidden_matrices: {name} must be a regular expression, got {pattern!r}: {e}"
            raise ValueError(told) from None
    return HiddenMatrices(heads, scanned, others, embeddings_and_outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenMatrices(Value):
    """A function that finds the matrices of hidden layers; see `hidden_matrices`.

    Attributes:
      heads: "fused" or "split".
      scanned: a regular expression for layers stacked along the first axis, or `None`.
      others: a regular expression for leaves that are no matrices, or `None`.
      embeddings_and_outputs: whether these are matrices, too.
    """

    heads: str
    scanned: str | None
    others: str | None
    embeddings_and_outputs: bool

    def __call__(self, tree: Params) -> PyTree:
        """Returns a pytree of `MatrixAxes` and `None`."""
        leaves, treedef = jax.tree.flatten_with_path(tree, is_leaf=is_none)
        return treedef.unflatten([self._axes(path_name(path), x) for path, x in leaves])

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns its frozen value."""
        given = (self.heads, self.scanned, self.others, self.embeddings_and_outputs)
        return freezer.call(Made(HiddenMatrices, (given, {})))

    def _axes(self, path: str, x: PyTree) -> MatrixAxes | None:
        name = re.sub(r"/(raw_)?value$", "", path.lower())  # a variable of nnx
        first = 1 if self.scanned and re.search(self.scanned, path) else 0
        axes = range(first, getattr(x, "ndim", 0))
        ends = () if self.embeddings_and_outputs else (EMBEDDINGS, OUTPUTS)
        left_out = (NO_MATRICES, *ends)
        if len(axes) < 2 or any(re.search(pattern, name) for pattern in left_out):
            return None
        if self.others and re.search(self.others, path):
            return None
        layer, _, leaf = name.rpartition("/")
        rows, columns = self._sides(layer, axes)
        if leaf == "weight" and not re.search(EMBEDDINGS, layer):  # outputs first
            rows, columns = (
                (axes[1:], axes[:1]) if re.search(CONVOLUTIONS, layer) else (axes[-1:], axes[-2:-1])
            )
        return MatrixAxes(tuple(rows), tuple(columns))

    def _sides(self, layer: str, axes: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Returns the axes of rows and columns where outputs are last."""
        split = self.heads == "split"
        if len(axes) == 3 and re.search(QUERIES, layer):
            return axes[:1], axes[2:] if split else axes[1:]
        if len(axes) == 3 and re.search(MERGING, layer):
            return axes[1:2] if split else axes[:2], axes[2:]
        if re.search(CONVOLUTIONS, layer):
            return axes[:-1], axes[-1:]
        return axes[-2:-1], axes[-1:]


def axes_or_none(axes: Axes, tree: PyTree) -> list[MatrixAxes | None]:
    """Returns the axes of the leaves that are matrices, and `None` for the others.

    Args:
      axes: a pytree of `MatrixAxes` and `None`, like `tree` or a prefix of it, or a function that
        returns one; a single one applies to the leaves with at least two axes; `None` for the
        leaves with two axes.
      tree: the pytree.
    """
    leaves = jax.tree.leaves(tree, is_leaf=is_none)
    found = for_tree(axes, tree, "the axes of matrices")
    if found is None:
        return [MatrixAxes() if getattr(x, "ndim", 0) == 2 else None for x in leaves]
    if isinstance(found, MatrixAxes):  # it cannot apply to vectors and scalars
        return [found if getattr(x, "ndim", 0) >= 2 else None for x in leaves]
    return axes_of_leaves(found, tree, ARGUMENT)


def for_matrices(
    of_matrices: TransformationLike,
    of_the_rest: TransformationLike,
    axes: Axes,
    labels: tuple[str, str] = ("matrices", "rest"),
) -> GradientTransformation:
    """Returns a partition: one transformation for matrices, and one for all other leaves.

    Args:
      of_matrices: the transformation of matrices.
      of_the_rest: the transformation of all other leaves.
      axes: which leaves are matrices, see `axes_or_none`.
      labels: the names of the two parts in the state. Default: "matrices" and "rest".
    """

    def label(tree: PyTree) -> PyTree:
        treedef = jax.tree.structure(tree, is_leaf=is_none)
        return treedef.unflatten(labels[a is None] for a in axes_or_none(axes, tree))

    def as_part(link: Link) -> Link:
        """Keeps the link's own name for descriptions, beside that of the optimizer of matrices."""
        return dataclasses.replace(link, traits={**link.traits, "part": link.owner or link.name})

    of_the_rest = with_links(of_the_rest, as_part)
    return partition(dict(zip(labels, (of_matrices, of_the_rest), strict=True)), label)
