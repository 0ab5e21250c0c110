"""Conversion of tensors to stacks of matrices, and back."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx._arguments import MisfitError, axes_within
from gradtx.engine.base import Array, PyTree, for_tree
from gradtx.engine.leaf import store
from gradtx.engine.masks import spread
from gradtx.engine.numerics import widen
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import LeafError, MaskedNode


class MatrixAxes(NamedTuple):
    """The axes of a tensor that are the rows and the columns of its matrices.

    A layer computes `x @ w`: it sums over rows, and columns are its outputs. All other axes index
    the matrices. Several axes are flattened into one, in the given order.

    Attributes:
      reduction_axis: the axis or axes of the rows; negative numbers count from the end. Default: 0.
      output_axis: the axis or axes of the columns, likewise. Default: 1.
    """

    reduction_axis: int | tuple[int, ...] = 0
    output_axis: int | tuple[int, ...] = 1


class Layout(NamedTuple):
    """The layout of a tensor as a stack of matrices.

    Attributes:
      order: the tensor's axes: first those that index matrices, then the rows, then the columns.
      shape: the tensor's shape in that order.
      counted: the number of axes that index matrices.
      sides: the numbers of rows and columns of each matrix; for slots, which are stacked in the
        same way, the shape of the slot of one matrix.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    counted: int
    sides: tuple[int, ...]

    @property
    def rows(self) -> int:
        """The number of rows of each matrix."""
        return self.sides[0]

    @property
    def columns(self) -> int:
        """The number of columns of each matrix."""
        return self.sides[1]

    @property
    def counts(self) -> tuple[int, ...]:
        """The lengths of the axes that index matrices."""
        return self.shape[: self.counted]

    @property
    def matrices(self) -> int:
        """The number of matrices."""
        return math.prod(self.counts)

    def repeated(self, times: int) -> "Layout":
        """Returns the layout of several tensors of this one, along a new first axis.

        Args:
          times: the number of tensors.
        """
        order = (0, *(axis + 1 for axis in self.order))
        return Layout(order, (times, *self.shape), self.counted + 1, self.sides)

    def take_apart(self, x: Array) -> Array:
        """Returns the stack of matrices of a tensor.

        Args:
          x: the tensor.
        """
        return self.merged(self.separate(x))

    def put_together(self, matrices: Array) -> Array:
        """Returns the tensor for a stack of matrices.

        Args:
          matrices: the stack.
        """
        return self.together(self.split(matrices), self.counts)

    def separate(self, x: Array) -> Array:
        """Returns the matrices `(n, ...)` of a tensor, or of a part of it, with all their axes."""
        x = _permuted(x, self.order)
        return _reshaped(x, (math.prod(x.shape[: self.counted]), *x.shape[self.counted :]))

    def merged(self, x: Array) -> Array:
        """Returns the stack `(n, rows, columns)` of whole matrices that have all their axes."""
        return _reshaped(x, (x.shape[0], *self.sides))

    def split(self, x: Array) -> Array:
        """Returns the matrices with all their axes, for a stack `(n, rows, columns)`."""
        return _reshaped(x, (x.shape[0], *self.shape[self.counted :]))

    def together(self, x: Array, counts: Sequence[int]) -> Array:
        """Returns the tensor, or a part of it, for matrices with all their axes.

        Args:
          x: the matrices.
          counts: the lengths of the axes that index them.
        """
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return _permuted(_reshaped(x, (*counts, *x.shape[1:])), back)


def _permuted(x: Array, order: Sequence[int]) -> Array:
    return x if list(order) == list(range(len(order))) else lax.transpose(x, tuple(order))


def _reshaped(x: Array, shape: tuple[int, ...]) -> Array:
    return x if x.shape == shape else lax.reshape(x, shape)


def layout_of(shape: Sequence[int], axes: MatrixAxes | None, argument: str = "axes") -> Layout:
    """Returns the layout of a tensor.

    Args:
      shape: the tensor's shape.
      axes: its axes; `None` for a matrix.
      argument: the name of the axes in error messages. Default: "axes".

    Raises:
      MisfitError: the axes do not match the shape.
    """
    if axes is None:
        if len(shape) != 2:
            raise MisfitError(
                f"has shape {tuple(shape)}, which is not a matrix; give the axes of its rows and "
                f"columns, as MatrixAxes in {argument}, or exclude it with gradtx.partition"
            )
        axes = MatrixAxes()
    rows, columns = (
        axes_within(part, len(shape), f"{name} in {argument}")
        for name, part in zip(MatrixAxes._fields, axes, strict=True)
    )
    if not (rows and columns) or len(set(rows + columns)) < len(rows + columns):
        told = f"{argument} must be different axes of rows and columns"
        raise MisfitError(f"has shape {tuple(shape)}, so {told}, got {axes}")
    rest = tuple(a for a in range(len(shape)) if a not in rows + columns)
    order = rest + rows + columns
    sides = tuple(math.prod(shape[a] for a in part) for part in (rows, columns))
    return Layout(order, tuple(shape[a] for a in order), len(rest), sides)


def axes_of_leaves(axes: PyTree, tree: PyTree, argument: str = "axes") -> list[MatrixAxes | None]:
    """Returns the axes of each leaf of a pytree.

    Args:
      axes: a pytree of `MatrixAxes` and `None`, like `tree` or a prefix of it; or a function that
        returns one for `tree`; or `None` if all leaves are matrices.
      tree: the tree.
      argument: the name of the axes in error messages. Default: "axes".

    Raises:
      StructureError: the two have different structures.
    """
    treedef = jax.tree.structure(tree, is_leaf=is_none)
    found = for_tree(axes, _unmasked(tree), "the axes of matrices")
    if found is None or isinstance(found, MatrixAxes):
        return [found] * treedef.num_leaves
    whole = spread(found, tree, lambda x: x is None or isinstance(x, MatrixAxes))
    return align(treedef, whole, argument, tree, "params")


def _unmasked(tree: PyTree) -> PyTree:
    """Returns a pytree in which masked leaves look like numbers, for functions of all leaves."""

    def shown(x: PyTree) -> PyTree:
        masked = isinstance(x, MaskedNode)
        return jax.ShapeDtypeStruct((), jnp.float32) if masked else x

    return jax.tree.map(shown, tree, is_leaf=lambda x: isinstance(x, MaskedNode))


class Place(NamedTuple):
    """The place of a leaf's matrices in a stack.

    Attributes:
      layout: the layout of the leaf.
      transposed: whether its matrices are transposed in the stack.
    """

    layout: Layout
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of rows and columns of the matrices in the stack."""
        return self.layout.sides[::-1] if self.transposed else self.layout.sides

    def stack(self, x: ArrayLike) -> Array:
        """Returns the leaf's matrices, in float32 or wider.

        Args:
          x: the leaf.
        """
        return self.turned(self.layout.take_apart(widen(x)))

    def unstack(self, matrices: Array, dtype: DTypeLike) -> Array:
        """Returns the leaf for a stack of matrices.

        Args:
          matrices: the stack.
          dtype: the leaf's dtype.
        """
        return store(self.layout.put_together(self.turned(matrices)), dtype)

    def turned(self, matrices: Array) -> Array:
        """Returns the matrices transposed, if they are in the stack; and back."""
        return lax.transpose(matrices, (0, 2, 1)) if self.transposed else matrices

    def with_rows(self, rows: int) -> "Place":
        """Returns the place of matrices with another number of rows in the stack.

        The leaf is then their plain stack: it has the axes that index matrices, and one axis each
        for rows and columns.

        Args:
          rows: the number of rows in the stack.
        """
        columns = self.shape[1]
        sides = (columns, rows) if self.transposed else (rows, columns)
        shape = (*self.layout.counts, *sides)
        return Place(
            Layout(tuple(range(len(shape))), shape, self.layout.counted, sides), self.transposed
        )


def places_of(
    tree: PyTree,
    name: str,
    axes: Sequence[MatrixAxes | None],
    active: Sequence[bool],
    lying: bool = False,
    argument: str = "axes",
) -> dict[int, Place]:
    """Returns the places of a pytree's leaves, by the leaves' numbers.

    Args:
      tree: the pytree.
      name: its name in error messages.
      axes: the axes of each leaf; `None` for a matrix.
      active: for each leaf, whether to include it.
      lying: whether tall matrices, with more rows than columns, are transposed. Default: False.
      argument: the name of the axes in error messages. Default: "axes".

    Raises:
      LeafError: the axes of a leaf do not match its shape.
    """
    places = {}
    for i, leaf in enumerate(jax.tree.leaves(tree, is_leaf=is_none)):
        if not active[i]:
            continue
        try:
            layout = layout_of(jnp.shape(leaf), axes[i], argument)
        except MisfitError as e:
            raise LeafError(ValueError, f"{name}{nth_path(tree, i)} {e}") from None
        places[i] = Place(layout, lying and layout.rows > layout.columns)
    return places


def place_of_slots(place: Place, shape: Sequence[int]) -> Place:
    """Returns the place of the slots of a leaf's matrices.

    A slot has the leaf's axes that index matrices, or one of length 1, and then its own.

    Args:
      place: the place of the leaf.
      shape: the shape of the slot of one matrix.
    """
    counts = place.layout.counts or (1,)
    whole = (*counts, *shape)
    return Place(Layout(tuple(range(len(whole))), whole, len(counts), tuple(shape)))
