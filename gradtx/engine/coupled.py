"""Methods that couple leaves: written by hand over pytrees, with common checks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import GradientTransformation, OptState, PyTree, ScalarOrSchedule, Updates
from gradtx.engine.links import Coupled
from gradtx.engine.numerics import compute_dtype, default_float
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.pipeline import Pipeline
from gradtx.engine.rules import LeafError


def coupled(
    state: type,
    init: Callable[..., OptState],
    update: Callable[..., tuple[Updates, OptState]],
    *,
    name: str,
    needs: tuple[str, ...] = (),
    params: bool = False,
    real_only: bool = False,
    rate: ScalarOrSchedule | None = None,
    traits: Mapping[str, Any] | None = None,
) -> GradientTransformation:
    """Creates a transformation from a pair of functions over pytrees, with checks of arguments.

    The functions are only called with valid arguments: parameters and updates are floating arrays
    (also complex unless `real_only`), `None`, or masked; every extra argument in `needs` is given;
    and `params`, if needed, have the structure and shapes of the updates.

    Args:
      state: the NamedTuple class of the state.
      init: `init(params) -> state`.
      update: `update(updates, state, params, **extra) -> (updates, state)`.
      name: its name in error messages.
      needs: the extra arguments that `update` requires. Default: none.
      params: whether `update` needs the parameters. Default: False.
      real_only: whether complex parameters are an error. Default: False.
      rate: the learning rate: a number, a scalar array or a schedule. `update` then gets that of
        the step as `learning_rate`, from here or from the call, `update(..., learning_rate=x)`;
        the state needs the fields `count` and `learning_rate`, which the engine updates. Default:
        there is none.
      traits: further properties, see `gradtx.engine.links.Link`. Default: none.

    Returns:
      The transformation. It raises `TypeError` for leaves of a wrong kind and for missing extra
      arguments, and `ValueError` for missing parameters and pytrees that differ in structure.

    Example:
      >>> from typing import NamedTuple
      >>> import jax
      >>> from gradtx.engine.coupled import coupled
      >>> class NoState(NamedTuple):
      ...     pass
      >>> def update(updates, state, params, *, value, **extra):
      ...     return jax.tree.map(lambda u: value * u, updates), state
      >>> tx = coupled(NoState, lambda params: NoState(), update, name="by_value", needs=("value",))
      >>> tx.update(2.0, tx.init(1.0), value=3.0)[0]
      6.0
      >>> tx.update(2.0, tx.init(1.0))
      Traceback (most recent call last):
      ...
      TypeError: by_value: needs the loss: call update(updates, state, params, value=...)
    """

    link = Coupled(
        name=name,
        state=state,
        needs=needs,
        needs_params=params,
        real_only=real_only,
        traits=traits or {},
        own_init=init,
        own_update=update,
        rate=rate,
    )
    return Pipeline((link,), 0).transformation()


def present(updates: Updates, /, **trees: PyTree) -> list[list[PyTree]]:
    """Returns the leaves of several pytrees for which there are updates.

    If an update is `None`, its parameter and slots don't change, and reductions over all leaves
    must not include them either.

    Args:
      updates: the updates.
      **trees: pytrees like the updates, by their names in error messages; their leaves may have one
        additional leading axis.

    Raises:
      ValueError: a pytree has another structure than the updates, or a leaf another shape.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    found = []
    for name, tree in trees.items():
        column = align(treedef, tree, name, updates)
        for i, (u, x) in enumerate(zip(leaves, column, strict=True)):
            if u is None:
                continue
            shape, found_here = jnp.shape(u), "no array"
            if x is not None:
                found_here = f"shape {jnp.shape(x)[jnp.ndim(x) - len(shape) :]}"
            if found_here != f"shape {shape}":
                problem = f"has shape {shape}, but {name} has {found_here}"
                raise LeafError(ValueError, f"updates{nth_path(updates, i)}: {problem}")
        found.append([x for u, x in zip(leaves, column, strict=True) if u is not None])
    return found


def replaced(tree: PyTree, updates: Updates, values: Sequence[PyTree]) -> PyTree:
    """Returns a pytree with new leaves where there are updates, and its own leaves elsewhere.

    Args:
      tree: a tree like the updates.
      updates: the updates.
      values: one leaf for each update that is not `None`.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    old = treedef.flatten_up_to(tree)
    new = iter(values)
    return treedef.unflatten(
        [x if u is None else next(new) for u, x in zip(leaves, old, strict=True)]
    )


def common_dtype(tree: PyTree) -> np.dtype:
    """Returns the real dtype in which scalars of a whole pytree are stored.

    It is the widest real dtype in which arithmetic on one of its leaves is done.

    Args:
      tree: a pytree of arrays.
    """
    found = [compute_dtype(jnp.finfo(jnp.result_type(x)).dtype) for x in jax.tree.leaves(tree)]
    return max(found, key=lambda d: d.itemsize, default=default_float())
