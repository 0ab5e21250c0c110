"""Writing a transformation as a rule for a stack of matrices.

Methods on matrices spend their time in linear algebra, which is at its best in batches. A rule here
sees all matrices of one shape at once, as an array `(n, rows, columns)`, whichever leaves they come
from: a program has as many matrix products as there are shapes, and not as there are leaves.

A leaf of higher rank is a stack of matrices already, once it is said which of its axes make rows
and which make columns; the others count the matrices.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, GradientTransformation, OptState, Params, Updates
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leaf import store
from gradtx.engine.matrix_layout import Layout, Place, axes_of_leaves, map_stacks, places_of
from gradtx.engine.numerics import safe_increment, widen
from gradtx.engine.paths import align, is_none
from gradtx.engine.pipeline import Pipeline
from gradtx.engine.rules import Coupled, LeafError, MaskedNode, Slots, field, flags


def matrixwise(
    state: type,
    init: Callable[[Array], Slots] | None,
    update: Callable[[Array, Slots, Any, Any], tuple[Array, Slots]],
    *,
    axes: Any = None,
    lying: bool = False,
    after: Callable[[Array, Layout], Array] | None = None,
    params: bool = False,
    per_step: Callable[[Any], dict[str, Any]] | None = None,
    name: str | None = None,
) -> GradientTransformation:
    """Lifts a rule for a stack of matrices to a transformation of pytrees.

    Leaves whose matrices have one shape and dtype reach the rule together. Half-precision leaves
    reach it as float32; updates and slots are stored back in the dtypes that they came in. What is
    dear and only due now and then, such as a preconditioner that is kept in a slot, belongs into
    `lax.cond(step % gap == 0, ...)`. A method that has another transformation inside, such as
    GaLore, uses `places_of` and `map_stacks` of `gradtx.engine.matrix_layout`, of which this is
    made.

    Args:
      state: the NamedTuple class of the state. The field `count`, if there is one, holds the number
        of steps taken. Every other field is a slot: a tree like the parameters, with an array for
        each leaf whose first axis counts the leaf's matrices.
      init: `init(p) -> Slots(...)`, the slots of a stack of matrices at the start; `None` without.
      update: `update(g, s, step, p) -> (g, Slots(...))` for a stack `(n, rows, columns)`, whose
        slots have `n` entries too. What it does to one matrix must not depend on the others. `p` is
        `None` unless `params`.
      axes: a tree of `MatrixAxes`, like the parameters or a prefix of them, or a function that
        makes one. Default: `None`, there and at a leaf, says that leaves are matrices.
      lying: whether the rule wants matrices with no more rows than columns; others reach it
        transposed, so that the two kinds can share a stack. Default: no.
      after: `after(g, layout) -> g`, for what depends on a leaf's rows and columns before they were
        transposed; it sees one leaf's matrices, as `update` left them. Default: nothing.
      params: whether the rule needs the parameters. Default: no.
      per_step: `per_step(step) -> dict` of scalars, read as `s.name`. Default: there are none.
      name: what errors call the rule. Default: the function in which `update` is defined.

    Raises:
      ValueError: a leaf is no matrix and has no axes, or its axes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import EmptyState, Slots, matrixwise
      >>> def unit(g, s, step, p):  # divides each matrix by its largest singular value
      ...     return g / jnp.linalg.norm(g, 2, (1, 2), keepdims=True), Slots()
      >>> tx = matrixwise(EmptyState, None, unit)
      >>> g = {"a": 2 * jnp.eye(2), "b": 3 * jnp.eye(2)}
      >>> print(tx.update(g, tx.init(g))[0]["b"])
      [[1. 0.]
       [0. 1.]]
    """
    title = name or getattr(update, "__qualname__", "a rule").split(".")[0].lstrip("_")
    return Pipeline(
        (_link(_Rule(state, init, update, axes, lying, after, per_step), params, title, ()),), 0
    ).transformation()


class _Rule(NamedTuple):
    """What `matrixwise` was given."""

    state: Any
    init: Callable[[Array], Slots] | None
    update: Callable[[Array, Slots, Any, Any], tuple[Array, Slots]]
    axes: Any
    lying: bool
    after: Callable[[Array, Layout], Array] | None
    per_step: Callable[[Any], dict[str, Any]] | None

    @property
    def slots(self) -> tuple[str, ...]:
        """The fields of the state that are trees like the parameters."""
        return tuple(f for f in self.state._fields if f != "count")


def _link(rule: _Rule, params: bool, title: str, masks: tuple[Any, ...]) -> Coupled:
    """Makes the link of a chain, which can be narrowed by masks."""

    def init(params_: Params) -> OptState:
        leaves, treedef, places = _places(rule, params_, "params", masks)
        columns: dict[str, list[Any]] = {f: _empty(leaves) for f in rule.slots}
        for i, place in places.items():
            slots = {} if rule.init is None else vars(rule.init(place.stack(leaves[i])))
            if sorted(slots) != sorted(rule.slots):
                raise LeafError(
                    TypeError, f"init gives {sorted(slots)}, the state has {sorted(rule.slots)}"
                )
            for f, x in slots.items():
                columns[f][i] = store(jnp.array(x, copy=True), jnp.result_type(x))
        values = {f: treedef.unflatten(column) for f, column in columns.items()}
        if "count" in rule.state._fields:
            values["count"] = jnp.zeros((), jnp.int32)
        return rule.state(**values)

    @compiled_when_concrete
    def run(updates: Updates, s: OptState, params_: Params | None) -> tuple[Updates, OptState]:
        leaves, treedef, places = _places(rule, updates, "updates", masks)
        p_leaves = [] if params_ is None else align(treedef, params_, "params", updates)
        columns = {f: align(treedef, getattr(s, f), f"state.{f}", updates) for f in rule.slots}
        step = field(s, "count")
        scalars = {} if rule.per_step is None else rule.per_step(step)

        def on_stacks(g: Array, *rest: Array) -> list[Array]:
            p, slots = (rest[0], rest[1:]) if p_leaves else (None, rest)
            mine = dict(zip(columns, slots, strict=True))
            g, new = rule.update(g, Slots(**mine, **scalars), step, p)
            return [g, *(getattr(new, f) for f in columns)]

        given = [leaves, p_leaves] if p_leaves else [leaves]
        stacks = [{i: place.stack(x[i]) for i, place in places.items()} for x in given]
        slots = [{i: widen(column[i]) for i in places} for column in columns.values()]
        for i, (g, *new) in map_stacks(on_stacks, *stacks, *slots).items():
            g = g if rule.after is None else rule.after(g, places[i].layout)
            leaves[i] = places[i].unstack(g, jnp.result_type(leaves[i]))
            for column, part in zip(columns.values(), new, strict=True):
                column[i] = store(part, jnp.result_type(column[i]))
        values = {f: treedef.unflatten(column) for f, column in columns.items()}
        if step is not None:
            values["count"] = safe_increment(step)
        return treedef.unflatten(leaves), s._replace(**values)

    def update(
        updates: Updates, s: OptState, params_: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        del extra
        if params and params_ is None:
            raise LeafError(ValueError, "needs the parameters: call update(updates, state, params)")
        return run(updates, s, params_ if params else None)

    return Coupled(
        rule.state,
        init,
        update,
        title,
        needs_params=params,
        narrow=lambda mask: _link(rule, params, title, (*masks, mask)),
    )


def _places(
    rule: _Rule, tree: Any, tree_name: str, masks: Sequence[Any]
) -> tuple[list[Any], Any, dict[int, Place]]:
    """Gives the leaves of a tree, its structure, and the places of those that take part."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    active = [leaf is not None for leaf in leaves]
    for mask in masks:
        active = [a and f for a, f in zip(active, flags(mask, tree, tree_name), strict=True)]
    axes = axes_of_leaves(rule.axes, tree)
    return leaves, treedef, places_of(tree, tree_name, axes, active, rule.lying)


def _empty(leaves: Sequence[Any]) -> list[Any]:
    """Gives what a slot's tree holds where no leaf takes part."""
    return [None if leaf is None else MaskedNode() for leaf in leaves]
