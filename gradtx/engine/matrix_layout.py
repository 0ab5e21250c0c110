"""Taking tensors apart into stacks of matrices."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import Array, is_function
from gradtx.engine.leaf import store
from gradtx.engine.masks import spread
from gradtx.engine.numerics import widen
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import LeafError


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
      counted: how many of these axes count matrices.
      rows: how many rows each has.
      columns: how many columns each has.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    counted: int
    rows: int
    columns: int

    @property
    def counts(self) -> tuple[int, ...]:
        """The lengths of the axes that count matrices."""
        return self.shape[: self.counted]

    @property
    def matrices(self) -> int:
        """How many matrices there are."""
        return math.prod(self.counts)

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
    sizes = [math.prod(shape[a] for a in part) for part in (rows, columns)]
    return Layout(order, tuple(shape[a] for a in order), len(rest), *sizes)


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
    found = axes(tree) if is_function(axes) else axes
    if found is None or isinstance(found, MatrixAxes):
        return [found] * treedef.num_leaves
    whole = spread(found, tree, lambda x: x is None or isinstance(x, MatrixAxes))
    return align(treedef, whole, "the dimension numbers", tree, "params")


class Place(NamedTuple):
    """Where a leaf's matrices stand.

    Attributes:
      layout: how the leaf is taken apart.
      transposed: whether its matrices are transposed then.
    """

    layout: Layout
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrices in the stack."""
        rows, columns = self.layout.rows, self.layout.columns
        return (columns, rows) if self.transposed else (rows, columns)

    def stack(self, x: Any) -> Array:
        """Gives the leaf's matrices, in float32 or wider.

        Args:
          x: the leaf.
        """
        matrices = self.layout.take_apart(widen(x))
        return lax.transpose(matrices, (0, 2, 1)) if self.transposed else matrices

    def unstack(self, matrices: Array, dtype: Any) -> Array:
        """Gives the leaf of a stack of matrices.

        Args:
          matrices: the stack.
          dtype: the leaf's dtype.
        """
        if self.transposed:
            matrices = lax.transpose(matrices, (0, 2, 1))
        return store(self.layout.put_together(matrices), dtype)

    def with_rows(self, rows: int) -> "Place":
        """Gives the place of matrices that have other rows in the stack.

        The leaf then is their plain stack: its shape is that of the axes that count matrices, and
        one axis each for rows and columns.

        Args:
          rows: how many rows they have in the stack.
        """
        columns = self.shape[1]
        sides = (columns, rows) if self.transposed else (rows, columns)
        shape = (*self.layout.counts, *sides)
        return Place(
            Layout(tuple(range(len(shape))), shape, self.layout.counted, *sides), self.transposed
        )


def places_of(
    tree: Any,
    name: str,
    axes: Sequence[MatrixAxes | None],
    active: Sequence[bool],
    lying: bool = False,
) -> dict[int, Place]:
    """Gives the places of a tree's leaves, by the leaves' numbers.

    Args:
      tree: the tree.
      name: what an error calls it.
      axes: the axes of each leaf; `None` for a matrix.
      active: whether a leaf takes part.
      lying: whether matrices with more rows than columns are transposed. Default: no.

    Raises:
      LeafError: the axes of a leaf do not fit its shape.
    """
    places = {}
    for i, leaf in enumerate(jax.tree.leaves(tree, is_leaf=is_none)):
        if not active[i]:
            continue
        try:
            layout = layout_of(jnp.shape(leaf), axes[i])
        except ValueError as e:
            raise LeafError(ValueError, f"{name}{nth_path(tree, i)} {e}") from None
        places[i] = Place(layout, lying and layout.rows > layout.columns)
    return places


def map_stacks(
    function: Callable[..., Sequence[Array]], *columns: Mapping[int, Array]
) -> dict[int, Sequence[Array]]:
    """Calls a function of stacks of matrices once for each shape that there is.

    Leaves whose arrays have the same shapes, but for the numbers of matrices, and the same dtypes
    are joined to longer stacks.

    Args:
      function: of stacks with as many entries, one from each column; gives such stacks again. What
        it does to one entry must not depend on the others.
      *columns: for each leaf, by its number, an array whose first axis counts its matrices.

    Returns:
      What the function gives for each leaf.
    """
    groups: dict[Any, list[int]] = {}
    for i in columns[0]:
        kind = tuple((column[i].shape[1:], column[i].dtype) for column in columns)
        groups.setdefault(kind, []).append(i)
    found: dict[int, Sequence[Array]] = {}
    for group in groups.values():
        made = function(*(_join([column[i] for i in group]) for column in columns))
        sizes = [columns[0][i].shape[0] for i in group]
        parts = zip(*(_part(stack, sizes) for stack in made), strict=True)
        found.update(zip(group, parts, strict=True))
    return found


def _join(stacks: Sequence[Array]) -> Array:
    return stacks[0] if len(stacks) == 1 else lax.concatenate(stacks, 0)


def _part(stack: Array, sizes: Sequence[int]) -> Sequence[Array]:
    return [stack] if len(sizes) == 1 else lax.split(stack, sizes)
