"""Taking tensors apart into stacks of matrices."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import lax

from gradtx.base import Array
from gradtx.paths import align, is_none


class MatrixAxes(NamedTuple):
    """Which axes of a tensor make the rows and the columns of its matrices.

    A layer computes `x @ w`: rows are what it sums over, columns are what it gives. The axes that
    are in neither count the matrices. Several axes are flattened into one, in the order given.

    Attributes:
      reduction_axis: the axis or axes of the rows, negative from the end. Default: 0.
      output_axis: the axis or axes of the columns. Default: 1.
    """

    reduction_axis: int | tuple[int, ...] = 0
    output_axis: int | tuple[int, ...] = 1


class Layout(NamedTuple):
    """How one tensor is taken apart into matrices, and put together again.

    Attributes:
      order: the tensor's axes: those that count matrices, those of the rows, those of the columns.
      shape: the tensor's shape in that order.
      matrices: how many there are.
      rows: how many rows each has.
      columns: how many columns each has.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    matrices: int
    rows: int
    columns: int

    def take_apart(self, x: Array) -> Array:
        """Gives the matrices of a tensor, stacked.

        Args:
          x: the tensor.
        """
        return lax.reshape(_permuted(x, self.order), (self.matrices, self.rows, self.columns))

    def put_together(self, matrices: Array) -> Array:
        """Gives the tensor of a stack of matrices.

        Args:
          matrices: the stack.
        """
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return _permuted(lax.reshape(matrices, self.shape), back)


def _permuted(x: Array, order: Sequence[int]) -> Array:
    return x if list(order) == list(range(len(order))) else lax.transpose(x, tuple(order))


def layout_of(shape: Sequence[int], axes: MatrixAxes | None) -> Layout:
    """Gives the layout of a tensor.

    Args:
      shape: the tensor's shape.
      axes: its axes; `None` for a matrix.

    Raises:
      ValueError: the axes do not fit the shape.
    """
    if axes is None:
        if len(shape) != 2:
            raise ValueError(
                f"has shape {tuple(shape)}, which is no matrix; say which axes are its rows and "
                "columns, or keep it out with gradtx.partition"
            )
        axes = MatrixAxes()
    rows, columns = (_axes(a, shape) for a in axes)
    if len(set(rows + columns)) < len(rows + columns):
        raise ValueError(f"has shape {tuple(shape)}, and {axes} names an axis twice")
    rest = tuple(a for a in range(len(shape)) if a not in rows + columns)
    order = rest + rows + columns
    sizes = [math.prod(shape[a] for a in part) for part in (rest, rows, columns)]
    return Layout(order, tuple(shape[a] for a in order), *sizes)


def _axes(axes: int | Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    found = (axes,) if isinstance(axes, int) else tuple(axes)
    rank = len(shape)
    if not found or any(not -rank <= a < rank for a in found):
        raise ValueError(f"has shape {tuple(shape)}, in which there are no axes {axes}")
    return tuple(a % rank for a in found)


def axes_of_leaves(axes: Any, tree: Any) -> list[MatrixAxes | None]:
    """Gives the axes of each leaf of a tree.

    Args:
      axes: a tree of `MatrixAxes` and `None`, like `tree` or a prefix of it; or a function that
        makes one from `tree`; or `None`, which takes every leaf for a matrix.
      tree: the tree.

    Raises:
      StructureError: the two have different structures.
    """
    treedef = jax.tree.structure(tree, is_leaf=is_none)
    found = axes(tree) if callable(axes) else axes
    if found is None or isinstance(found, MatrixAxes):
        return [found] * treedef.num_leaves
    try:
        whole = jax.tree.map(
            lambda a, below: jax.tree.map(lambda _: a, below, is_leaf=is_none),
            found,
            tree,
            is_leaf=lambda x: x is None or isinstance(x, MatrixAxes),
        )
    except (ValueError, TypeError):
        whole = found  # `align` says what differs
    return align(treedef, whole, "the dimension numbers", tree, "params")
