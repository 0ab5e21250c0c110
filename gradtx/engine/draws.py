"""Random arrays for the leaves of a pytree.

The program of a random draw is large: with one for each of 400 leaves, XLA compiles a step for a
minute. So inside `jit` the leaves of one type share a draw, in a loop over their keys. The numbers
are those of separate draws. With `vmap` instead of the loop they would not be for all kinds of
keys, and four times the memory would be needed.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gradtx._devices import explicit_mesh, over_automatic_axes, placed
from gradtx.engine.base import Array, PyTree
from gradtx.engine.concrete import is_traced
from gradtx.engine.cutting import cut
from gradtx.engine.scalars import finished

Kind = TypeVar("Kind")
"""What determines the result for a leaf, besides its arrays: hashable."""


def drawn(draw: Callable[[Array, Kind], Array], keys: Array, kinds: Sequence[Kind]) -> list[Array]:
    """Draws an array for each leaf; inside `jit`, those of one kind share a compiled draw.

    Args:
      draw: `draw(key, kind) -> array`.
      keys: random keys, one for each leaf.
      kinds: for each leaf what determines its draw, besides its key, such as its type.
    """
    keys = finished(keys)
    if not has_loops(keys):
        return [draw(key, kind) for key, kind in zip(keys, kinds, strict=True)]
    return in_loops(lambda kind, key: draw(key, kind), kinds, keys)


def has_loops(*arrays: ArrayLike) -> bool:
    """Returns whether the results for leaves are computed by `in_loops`: inside `jit`.

    There the compiler would divide all leaves of a loop over automatic axes of a mesh in one way.

    Args:
      *arrays: arrays of leaves, or keys.
    """
    return is_traced(arrays) and not any(map(over_automatic_axes, arrays))


def in_loops(function: Callable[..., PyTree], kinds: Sequence[Kind], *columns: Any) -> list[PyTree]:
    """Calls a function for each leaf, in compiled code that has it once for each kind of leaves.

    Args:
      function: `function(kind, *row)`, which returns a pytree of arrays.
      kinds: for each leaf what determines its result, besides its row.
      *columns: arrays with a row for each leaf, such as random keys, or sequences with an array for
        each leaf.
    """
    groups: dict[Kind, list[int]] = {}
    for i, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(i)

    def rows(column: Any, group: list[int]) -> Array:
        if isinstance(column, jax.Array):
            return column[np.array(group)]
        return jnp.stack([column[i] for i in group])

    stacks, treedef = jax.tree.flatten(
        [
            lax.map(lambda row, kind=kind: function(kind, *row), [rows(x, group) for x in columns])
            for kind, group in groups.items()
        ]
    )
    parts = cut(stacks, list(map(len, stacks)))
    numbers, found = treedef.unflatten(range(len(stacks))), dict[int, PyTree]()
    for group, mine in zip(groups.values(), numbers, strict=True):
        for k, i in enumerate(group):
            found[i] = jax.tree.map(lambda n, k=k: lax.squeeze(parts[n][k], (0,)), mine)
    return [found[i] for i in range(len(kinds))]


def type_of(x: ArrayLike) -> jax.ShapeDtypeStruct:
    """Returns the type of an array, with its sharding over explicit axes of a mesh if it has one.

    Args:
      x: an array or a number.
    """
    explicit = explicit_mesh([x]) is not None
    sharding = jax.typeof(x).sharding if explicit else None
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding)


def sampled(sampler: Callable[..., Array]) -> Callable[[Array, jax.ShapeDtypeStruct], Array]:
    """Returns the draw of a sampler for leaves of a type, divided over explicit axes as they are.

    Args:
      sampler: `sampler(key, shape, dtype) -> array`, such as the functions of `jax.random`.
    """

    def draw(key: Array, kind: jax.ShapeDtypeStruct) -> Array:
        return placed(sampler(key, kind.shape, kind.dtype), kind.sharding)

    return draw
