"""Methods that couple leaves: written by hand over trees, with the checks that all of them need."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import GradientTransformation, OptState, ScalarOrSchedule, Updates
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
    """Makes a transformation of a hand-written pair, and checks for it what it is given.

    The pair may rely on this: parameters and updates are floating arrays (complex ones unless
    `real_only`), `None`, or masked; every extra argument in `needs` is there; and `params` are, if
    they are needed, of the updates' structure and shapes.

    Args:
      state: the NamedTuple class of the state.
      init: `init(params) -> state`.
      update: `update(updates, state, params, **extra) -> (updates, state)`.
      name: what errors call it.
      needs: the extra arguments that `update` cannot do without. Default: none.
      params: whether `update` needs the parameters. Default: no.
      real_only: whether complex parameters are refused. Default: no.
      rate: the learning rate: a number, a scalar array or a schedule. `update` then gets that of
        the step as `learning_rate`, from here or from the call, `update(..., learning_rate=x)`;
        the state needs the fields `count` and `learning_rate`, which are kept for it. Default:
        there is none.
      traits: what is known of it beside, see `gradtx.engine.links.Link`. Default: nothing.

    Returns:
      The transformation. It raises `TypeError` for leaves of a wrong kind and for missing extra
      arguments, `ValueError` for missing parameters and trees that differ.

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


def present(updates: Updates, /, **trees: Any) -> list[list[Any]]:
    """Gives the leaves of several trees of the state where there are updates.

    An update that is `None` leaves its parameter and its slots alone, so that what a method
    computes over all leaves must not see them either.

    Args:
      updates: the updates.
      **trees: trees like them, under the names that errors call them; their leaves may have one
        more axis in front.

    Raises:
      ValueError: a tree has another structure than the updates, or a leaf another shape.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    found = []
    for name, tree in trees.items():
        column = align(treedef, tree, name, updates)
        for i, (u, x) in enumerate(zip(leaves, column, strict=True)):
            if u is None:
                continue
            wanted, held = jnp.shape(u), "nothing"
            if x is not None:
                shape = jnp.shape(x)
                held = str(shape[len(shape) - len(wanted) :])
            if held != str(wanted):
                path = f"updates{nth_path(updates, i)}"
                raise LeafError(
                    ValueError,
                    f"{path}: has shape {wanted}, but {name} was made for another: it holds "
                    f"{held} where {wanted} belongs",
                )
        found.append([x for u, x in zip(leaves, column, strict=True) if u is not None])
    return found


def replaced(tree: Any, updates: Updates, values: Sequence[Any]) -> Any:
    """Puts new leaves into a tree where there are updates, and keeps its others.

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


def common_dtype(tree: Any) -> Any:
    """Gives the real dtype in which scalars that belong to a whole tree are kept.

    It is the widest real dtype in which arithmetic on one of its leaves is done.

    Args:
      tree: a pytree of arrays.
    """
    found = [compute_dtype(jnp.finfo(jnp.result_type(x)).dtype) for x in jax.tree.leaves(tree)]
    return max(found, key=lambda d: d.itemsize, default=default_float())
