"""One sweep over the leaves of a pytree: where rules for one array meet trees.

A rule knows one array and its slots. The engine knows everything else, and is the only place that
does: flattening, leaves that are `None` or masked, the step count, per-leaf random keys, the dtype
in which arithmetic is done and in which slots are stored, errors that name a leaf's path, and how
often Python code is traced.

Tracing. Kernels are traced once for each distinct signature (shape and dtype) among the leaves, by
an inner `jit`; a block of leaves that repeats, as layers do, is one call of another. A call with
concrete arrays compiles the whole sweep, so that an un-jitted step is one dispatch.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import OptState, Params, Updates
from gradtx.engine.blocks import repeated_block
from gradtx.engine.concrete import is_traced, shape_and_dtype
from gradtx.engine.leaf import Cell, Plan, rounds, store, update_leaf
from gradtx.engine.numerics import default_float, widen
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import Kernel, LeafError, MaskedNode, Rule, field, may_be_kept


class Sweep:
    """Takes each leaf through one or several kernels, one after another."""

    def __init__(self, kernels: tuple[Kernel, ...]):
        self.kernels = kernels
        self.needs_params = any(kernel.needs_params for kernel in kernels)
        self._leaf = jax.jit(functools.partial(update_leaf, kernels), static_argnums=0)
        self._block = jax.jit(self._each, static_argnums=0)
        self._whole = jax.jit(self._all, static_argnames="active")

    def init(self, params: Params, rules: Sequence[Rule]) -> list[OptState]:
        """Gives each kernel's first state."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        everywhere = (True,) * len(leaves)
        activity = [rule.activity(params, "params") or everywhere for rule in rules]
        for i, leaf in enumerate(leaves):
            takes_part = [active[i] for active in activity]
            if leaf is not None and any(takes_part):
                try:
                    self._check_parameter(leaf, takes_part, rules)
                except LeafError as e:
                    raise e.at(f"params{nth_path(params, i)}") from None
        states = []
        for rule, active in zip(rules, activity, strict=True):
            fields = _first_scalars(rule)
            names = [name for name in rule.kernel.state._fields if name not in fields]
            slots = [_first_slots(rule, names, *pair) for pair in zip(leaves, active, strict=True)]
            for number, name in enumerate(names):
                fields[name] = treedef.unflatten([s[number] for s in slots])
            states.append(rule.kernel.state(**fields))
        return states

    def _check_parameter(
        self, leaf: Any, takes_part: Sequence[bool], rules: Sequence[Rule]
    ) -> None:
        if not hasattr(leaf, "dtype") and not isinstance(leaf, (int, float, complex)):
            raise LeafError(
                TypeError,
                f"this is {type(leaf).__name__}, not an array; "
                "replace it by None or keep it out of the tree",
            )
        shape, dtype = jnp.shape(leaf), jnp.result_type(leaf)
        for stage, kernel in enumerate(self.kernels):
            if not takes_part[stage]:
                continue
            if kernel.real_only and jnp.issubdtype(dtype, jnp.complexfloating):
                raise LeafError(
                    TypeError, f"this is {dtype}, and the rule is for real numbers", stage
                )
            if not jnp.issubdtype(dtype, jnp.inexact) and rounds(
                kernel, jax.ShapeDtypeStruct(shape, dtype), _first_known(rules[stage])
            ):
                raise LeafError(
                    TypeError,
                    f"this is {dtype}, and a step would have to be rounded to be added to it; "
                    "keep it out with gradtx.masked, freeze it with gradtx.partition and "
                    "gradtx.set_to_zero, or make it floating",
                    stage,
                )

    def update(
        self,
        updates: Updates,
        states: Sequence[OptState],
        params: Params | None,
        rules: Sequence[Rule],
        extra: Mapping[str, Any],
    ) -> tuple[Updates, list[OptState]]:
        """Takes the updates through all kernels."""
        if not self.needs_params:
            params = None
        elif params is None:
            stage = next(i for i, kernel in enumerate(self.kernels) if kernel.needs_params)
            raise LeafError(
                ValueError, "needs the parameters: call update(updates, state, params)", stage
            )
        scalars = tuple(
            rule.scalars(field(state, rule.kernel.counter.fields[-1]), extra)
            for rule, state in zip(rules, states, strict=True)
        )
        active = None
        if any(rule.masks for rule in rules):
            active = tuple(rule.activity(updates, "updates") for rule in rules)
        run = self._all if is_traced(updates) else self._whole
        return run(updates, tuple(states), params, scalars, active=active)

    def _all(
        self,
        updates: Updates,
        states: tuple[OptState, ...],
        params: Params | None,
        scalars: tuple[dict[str, Any], ...],
        active: tuple[tuple[bool, ...] | None, ...] | None,
    ) -> tuple[Updates, list[OptState]]:
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        p_leaves = [None] * len(leaves)
        if params is not None:
            p_leaves = align(treedef, params, "params", updates)
        names = tuple(
            tuple(
                f for f in kernel.state._fields if f not in kernel.engine_fields and f not in shared
            )
            for kernel, shared in zip(self.kernels, scalars, strict=True)
        )
        columns = [
            [align(treedef, getattr(state, f), f"state.{f}", updates) for f in fields]
            for state, fields in zip(states, names, strict=True)
        ]
        counters = [kernel.counter for kernel in self.kernels]
        steps = tuple(field(s, counter.field) for s, counter in zip(states, counters, strict=True))
        # For each stage the next step's key and this step's, or nothing.
        keys = [
            (None, None) if (k := field(state, "rng_key")) is None else tuple(jax.random.split(k))
            for state in states
        ]
        leaf_keys = [None if k is None else jax.random.split(k, len(leaves)) for _, k in keys]
        # Python numbers stay constants of the traced rules; arrays are passed to them.
        constants = tuple(
            tuple((n, x) for n, x in shared.items() if isinstance(x, (int, float)))
            for shared in scalars
        )
        passed = tuple(
            {n: x for n, x in shared.items() if not isinstance(x, (int, float))}
            | dict({} if kernel.per_step is None else kernel.per_step(step))
            for kernel, shared, step in zip(self.kernels, scalars, steps, strict=True)
        )

        where, plans, cells = [], [], []
        stages = range(len(self.kernels))
        for i, (g, p) in enumerate(zip(leaves, p_leaves, strict=True)):
            takes_part = tuple(active is None or (a := active[k]) is None or a[i] for k in stages)
            if g is None or not any(takes_part):
                continue
            _check_pair(g, p, updates, i)
            slots = tuple(tuple(c[i] for c in columns[k]) if takes_part[k] else () for k in stages)
            where.append(i)
            plans.append(Plan(takes_part, names, constants))
            cells.append(Cell(g, p, slots, tuple(None if k is None else k[i] for k in leaf_keys)))
        try:
            results = self._in_blocks(plans, cells, steps, passed)
        except _InCell as e:
            error = e.error.at(f"updates{nth_path(updates, where[e.number])}")
            raise error from error.__cause__
        for i, (u, slots) in zip(where, results, strict=True):
            leaves[i] = u
            for column, new in zip(columns, slots, strict=True):
                for values, value in zip(column, new, strict=False):
                    values[i] = value

        new_states = []
        for k, (state, shared) in enumerate(zip(states, scalars, strict=True)):
            fields = {n: treedef.unflatten(c) for n, c in zip(names[k], columns[k], strict=True)}
            for name in counters[k].fields if steps[k] is not None else ():
                fields[name] = counters[k].advance(getattr(state, name))
            if keys[k][0] is not None:
                fields["rng_key"] = keys[k][0]
            for name, value in shared.items():
                if name in self.kernels[k].state._fields:
                    fields[name] = jnp.asarray(value, getattr(state, name).dtype)
            new_states.append(state._replace(**fields) if fields else state)
        return treedef.unflatten(leaves), new_states

    def _in_blocks(
        self, plans: list[Plan], cells: list[Cell], steps: Any, scalars: Any
    ) -> list[tuple[Any, Any]]:
        """Runs all cells; those of a block that repeats, block by block."""
        signatures = [(plan, _signature(cell)) for plan, cell in zip(plans, cells, strict=True)]
        block = repeated_block(signatures)
        if block.length < 2 or block.times < 2:
            return self._each(tuple(plans), cells, steps, scalars)
        end = block.start + block.length * block.times
        cuts = [0, *range(block.start, end + 1, block.length), len(cells)]
        results = []
        for a, b in itertools.pairwise(cuts):
            run = self._block if block.start <= a < end else self._each
            try:
                results.extend(run(tuple(plans[a:b]), cells[a:b], steps, scalars))
            except _InCell as e:
                raise _InCell(e.error, a + e.number) from None
        return results

    def _each(
        self, plans: tuple[Plan, ...], cells: Sequence[Cell], steps: Any, scalars: Any
    ) -> list[tuple[Any, Any]]:
        results = []
        for number, (plan, cell) in enumerate(zip(plans, cells, strict=True)):
            try:
                results.append(self._leaf(plan, cell, steps, scalars))
            except LeafError as e:
                raise _InCell(e, number) from None
        return results


class _InCell(Exception):
    """A `LeafError`, and the number of the cell where it was raised."""

    def __init__(self, error: LeafError, number: int):
        super().__init__(str(error))
        self.error, self.number = error, number


@functools.lru_cache(maxsize=512)
def _kept_sweep(kernels: tuple[Kernel, ...]) -> Sweep:
    return Sweep(kernels)


def make_sweep(kernels: tuple[Kernel, ...]) -> Sweep:
    """Gives the sweep over kernels, the same one again if its compiled code may be kept.

    Args:
      kernels: the kernels, in their order.
    """
    return _kept_sweep(kernels) if may_be_kept(kernels) else Sweep(kernels)


def _signature(cell: Cell) -> Any:
    # Shapes and dtypes tell cells apart; were two confused, `jit` would still trace them both.
    return tuple(map(shape_and_dtype, jax.tree.leaves(cell)))


def _check_pair(g: Any, p: Any, updates: Updates, i: int) -> None:
    if p is None:
        return
    if jnp.shape(p) != jnp.shape(g):
        path = nth_path(updates, i)
        raise LeafError(
            ValueError,
            f"updates{path} has shape {jnp.shape(g)}, params{path} has shape {jnp.shape(p)}",
        )
    if jnp.iscomplexobj(g) and not jnp.iscomplexobj(p):
        path = nth_path(updates, i)
        raise LeafError(
            TypeError,
            f"updates{path} is {jnp.result_type(g)}, params{path} is {jnp.result_type(p)}",
        )


def _first_known(rule: Rule) -> dict[str, Any]:
    """Gives what all leaves share at the first step."""
    counter = rule.kernel.counter
    counts = counter.field in rule.kernel.state._fields
    return rule.scalars(jnp.asarray(counter.first) if counts else None, {})


def _first_scalars(rule: Rule) -> dict[str, Any]:
    """Gives the fields of a rule's first state that are no slots."""
    names, fields, counter = rule.kernel.state._fields, {}, rule.kernel.counter
    if counter.field in names:
        fields = {name: jnp.array(counter.first) for name in counter.fields}
    if "rng_key" in names:
        fields["rng_key"] = jnp.copy(rule.key)  # the state may be donated
    for name, value in _first_known(rule).items():
        if name in names:
            fields[name] = jnp.asarray(value, default_float())
    return fields


def _first_slots(rule: Rule, names: Sequence[str], leaf: Any, active: bool) -> list[Any]:
    """Gives one leaf's first slots, in the order of their names."""
    if leaf is None or not active:
        return [None if leaf is None else MaskedNode() for _ in names]
    if not names:
        return []
    slots = {} if rule.kernel.init is None else vars(rule.kernel.init(widen(leaf)))
    if sorted(slots) != sorted(names):
        raise LeafError(TypeError, f"init gives the slots {sorted(slots)}, the state has {names}")
    taken = {id(leaf)}

    def own(slot: Any) -> Any:
        """Makes a strongly typed buffer of its own, so that params and state can be donated."""
        slot = jnp.array(slot, copy=True) if id(slot) in taken else slot
        taken.add(id(slot))
        return store(slot, jnp.result_type(slot))

    slots = {name: jax.tree.map(own, slots[name]) for name in names}
    return [slots[name] for name in names]
