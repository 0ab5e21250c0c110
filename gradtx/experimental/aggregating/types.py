"""The types of aggregators, and the axes of elements."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gradtx.engine.base import OptState, Params, PyTree, Updates

PerElementUpdates = Updates
"""A pytree like the parameters whose leaves have additional axes, over the elements of a batch."""
AggregatedUpdates = PyTree
"""A pytree like the parameters, or a pair of it and a dict of extra arguments."""
MaybeAxis = int | Sequence[int] | None
"""The axes of elements; `None` if there are none."""


class AggregatorUpdateFn(Protocol):
    """A function `update(per_element, state, params=None, **extra) -> (aggregated, state)`."""

    def __call__(  # noqa: D102
        self,
        updates: PerElementUpdates,
        state: OptState,
        params: Params | None = None,
        /,
        **extra: Any,
    ) -> tuple[AggregatedUpdates, OptState]: ...


class Aggregator(NamedTuple):
    """A pure pair `(init, update)` that aggregates updates of elements to updates of parameters.

    It is like a `GradientTransformation`, except that its updates are per-example gradients, as
    returned by `jax.vmap(jax.grad(loss), (None, 0))(params, batch)`.

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
    """Returns the axes of elements as a tuple.

    Args:
      per_elt_axis: one axis or several.
    """
    return (per_elt_axis,) if isinstance(per_elt_axis, int) else tuple(per_elt_axis)


def get_batch_size_from_per_elt_updates(
    per_elt_updates: PerElementUpdates, per_elt_axis: int | Sequence[int]
) -> int:
    """Returns the number of elements: the product of the lengths of their axes.

    Args:
      per_elt_updates: a pytree whose leaves have these axes.
      per_elt_axis: the axis or axes of elements.

    Raises:
      ValueError: leaves differ in the number, a leaf lacks an axis, or there are no leaves.

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
            raise ValueError(f"aggregating: {told} must have the axes {axes}, got shape {shape}")
        sizes[told] = math.prod(shape[axis] for axis in axes)
    if len(set(sizes.values())) != 1:
        raise ValueError(f"aggregating: leaves must have the same batch size, got {sizes}")
    return next(iter(sizes.values()))
