"""What an aggregator is, and the axes along which it aggregates."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gradtx.engine.base import OptState, Params, Updates

PerElementUpdates = Updates
"""A tree like the parameters whose leaves have one or more axes of elements besides."""
AggregatedUpdates = Any
"""A tree like the parameters, or a pair of it and a dictionary of extra arguments."""
MaybeAxis = int | Sequence[int] | None
"""The axes of elements; `None` if there are none."""


class AggregatorUpdateFn(Protocol):
    """Aggregates: `update(per_element, state, params=None, **extra) -> (aggregated, state)`."""

    def __call__(  # noqa: D102
        self,
        updates: PerElementUpdates,
        state: OptState,
        params: Params | None = None,
        /,
        **extra: Any,
    ) -> tuple[AggregatedUpdates, OptState]: ...


class Aggregator(NamedTuple):
    """A pure pair `(init, update)` that takes updates of elements to updates of parameters.

    It is a `GradientTransformation` in all but what it is given: gradients of single examples, as
    `jax.vmap(jax.grad(loss), (None, 0))(params, batch)` makes them. The type tells the caller so.

    Attributes:
      init: `params -> state`.
      update: `(per_element_updates, state, params=None, **extra) -> (updates, state)`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> median = aggregating.Aggregator(
      ...     init=lambda params: (), update=lambda g, s, p=None: (jnp.median(g, axis=0), s)
      ... )
      >>> print(median.update(jnp.array([[1.0], [2.0], [9.0]]), ())[0])
      [2.]
    """

    init: Callable[..., OptState]
    update: Callable[..., tuple[AggregatedUpdates, OptState]]


def axes_of(per_elt_axis: int | Sequence[int]) -> tuple[int, ...]:
    """Gives the axes of elements as a tuple.

    Args:
      per_elt_axis: an axis, or several.
    """
    return (per_elt_axis,) if isinstance(per_elt_axis, int) else tuple(per_elt_axis)


def get_batch_size_from_per_elt_updates(
    per_elt_updates: PerElementUpdates, per_elt_axis: int | Sequence[int]
) -> int:
    """Counts the elements: the product of the sizes of their axes.

    Args:
      per_elt_updates: a tree whose leaves have these axes.
      per_elt_axis: the axis of elements, or several.

    Raises:
      ValueError: leaves differ in it, lack an axis, or there are none.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.experimental import aggregating
      >>> g = {"w": jnp.ones((8, 3)), "b": jnp.ones(8)}
      >>> aggregating.get_batch_size_from_per_elt_updates(g, 0)
      8
    """
    axes, sizes = axes_of(per_elt_axis), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(per_elt_updates):
        shape, told = jnp.shape(leaf), "updates" + jax.tree_util.keystr(path)
        if not all(-len(shape) <= axis < len(shape) for axis in axes):
            raise ValueError(f"aggregating: {told} has the shape {shape}, and not the axes {axes}")
        sizes[told] = math.prod(shape[axis] for axis in axes)
    if len(set(sizes.values())) != 1:
        raise ValueError(f"aggregating: leaves must have the same batch size, got {sizes}")
    return next(iter(sizes.values()))
