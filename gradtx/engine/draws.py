"""Random arrays for the leaves of a pytree.

The program of a random draw is large: with one for each of 400 leaves, XLA compiles a step for a
minute. So inside `jit` the leaves of one type share a draw, in a loop over their keys. The numbers
are those of separate draws. With `vmap` instead of the loop they would not be for all kinds of
keys, and four times the memory would be needed.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gradtx._devices import explicit_mesh, over_automatic_axes, placed
from gradtx.engine.base import Array
from gradtx.engine.concrete import is_traced
from gradtx.engine.cutting import cut
from gradtx.engine.scalars import finished

Kind = TypeVar("Kind")
"""What determines the draw for a leaf, besides its key: hashable."""


def drawn(draw: Callable[[Array, Kind], Array], keys: Array, kinds: Sequence[Kind]) -> list[Array]:
    """Draws an array for each leaf; inside `jit`, those of one kind share a compiled draw.

    Args:
      draw: `draw(key, kind) -> array`.
      keys: random keys, one for each leaf.
      kinds: for each leaf what determines its draw, besides its key, such as its type.
    """
    keys = finished(keys)
    # The compiler would divide all leaves of a loop over automatic axes in one way.
    if not is_traced(keys) or over_automatic_axes(keys):
        return [draw(key, kind) for key, kind in zip(keys, kinds, strict=True)]
    groups: dict[Kind, list[int]] = {}
    for i, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(i)

    def stack(kind: Kind, group: list[int]) -> Array:
        if len(group) == 1:
            return draw(keys[group[0]], kind)[None]
        return lax.map(lambda key: draw(key, kind), keys[np.array(group)])

    stacks = [stack(kind, group) for kind, group in groups.items()]
    found: dict[int, Array] = {}
    for group, parts in zip(groups.values(), cut(stacks, list(map(len, stacks))), strict=True):
        found |= {i: lax.squeeze(part, (0,)) for i, part in zip(group, parts, strict=True)}
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
