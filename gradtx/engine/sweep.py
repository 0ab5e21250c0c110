"""The sweep of rules over the leaves of a pytree.

A rule is a function of one array and its slots. The sweep handles flattening, leaves that are
`None` or masked, the step count, random keys for the leaves, and tracing: kernels are traced once
for each different signature (shape and dtype) of leaves, by an inner `jit`, and a block of leaves
that repeats, as layers do, is one call of another `jit`.
"""

import functools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, OptState, Params, PyTree, PyTreeDef, Scalar, Updates
from gradtx.engine.blocks import pieces
from gradtx.engine.checks import check_given, check_pair
from gradtx.engine.concrete import shape_and_dtype
from gradtx.engine.leaf import Cell, Plan, update_leaf
from gradtx.engine.links import Active, Rule
from gradtx.engine.numerics import value_of
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import LeafError, field, rate_kept

Updated = tuple[Array, tuple[tuple[PyTree, ...], ...]]


class Lane:
    """The part of one rule in a step: its slots, leaf by leaf, and the scalars all leaves share.

    Args:
      rule: the rule.
      state: its state.
      scalars: the scalars that all leaves share.
      active: for each leaf, whether the rule acts on it; `None` means on all.
      updates: the pytree of updates.
      treedef: its structure, with `None` as a leaf.
    """

    def __init__(
        self,
        rule: Rule,
        state: OptState,
        scalars: Mapping[str, Scalar],
        active: Active,
        updates: Updates,
        treedef: PyTreeDef,
    ):
        kernel = self.kernel = rule.kernel
        self.state, self.scalars, self.active, self.treedef = state, scalars, active, treedef
        self.names = kernel.slots(scalars)
        trees = {f: getattr(state, f) for f in self.names}
        self.columns = [align(treedef, x, f"state.{f}", updates) for f, x in trees.items()]
        self.step = field(state, kernel.counter.field)
        self.next_key, self.keys = None, None
        if (key := field(state, "rng_key")) is not None:
            self.next_key, mine = jax.random.split(key)
            self.keys = jax.random.split(mine, treedef.num_leaves)
        # Python numbers stay constants of the traced rules; arrays are passed to them.
        constant = {n: x for n, x in scalars.items() if isinstance(x, (int, float))}
        self.constants = tuple(constant.items())
        self._arrays = {n: x for n, x in scalars.items() if n not in constant}

    def passed(self) -> dict[str, Scalar]:
        """Returns the scalars that are passed to the rule at run time."""
        per_step = self.kernel.per_step
        return self._arrays if per_step is None else {**self._arrays, **per_step(self.step)}

    def takes(self, i: int) -> bool:
        """Returns whether the rule acts on the i-th leaf."""
        return self.active is None or self.active[i]

    def slots(self, i: int) -> tuple[PyTree, ...]:
        """Returns the slots of the i-th leaf."""
        return tuple(column[i] for column in self.columns) if self.takes(i) else ()

    def key(self, i: int) -> Array | None:
        """Returns the random key of the i-th leaf, or `None`."""
        return None if self.keys is None else self.keys[i]

    def put(self, i: int, slots: Sequence[PyTree]) -> None:
        """Replaces the slots of the i-th leaf."""
        for column, new in zip(self.columns, slots, strict=False):
            column[i] = new

    def next_state(self) -> OptState:
        """Returns the state after the step."""
        columns = zip(self.names, self.columns, strict=True)
        fields = {name: self.treedef.unflatten(column) for name, column in columns}
        for name in self.kernel.counter.fields if self.step is not None else ():
            fields[name] = self.kernel.counter.advance(getattr(self.state, name))
        if self.next_key is not None:
            fields["rng_key"] = self.next_key
        for name, value in self.scalars.items():
            if (kept := field(self.state, name)) is not None:
                used = jnp.asarray(value_of(value), kept.dtype)
                fields[name] = used if self.step is None else rate_kept(used, self.step)
        return self.state._replace(**fields) if fields else self.state


class Sweep:
    """A sweep: applies one or several rules to each leaf, one after another.

    Args:
      rules: the rules.
    """

    def __init__(self, rules: Sequence[Rule]):
        self.rules = rules
        kernels = tuple(rule.kernel for rule in rules)
        self._leaf = functools.partial(update_leaf, kernels)
        self._leaf_again = jax.jit(self._leaf, static_argnums=0)
        self._block = jax.jit(self._each, static_argnums=(0, 1))

    def update(
        self,
        updates: Updates,
        states: Sequence[OptState],
        params: Params | None,
        scalars: Sequence[Mapping[str, Scalar]],
        activity: Sequence[Active],
    ) -> tuple[Updates, list[OptState]]:
        """Applies all rules to the updates.

        Args:
          updates: the updates.
          states: each rule's state.
          params: the parameters, or `None`.
          scalars: for each rule, the scalars that all leaves share.
          activity: for each rule and leaf, whether the rule acts on the leaf.
        """
        needing = [k for k, rule in enumerate(self.rules) if rule.needs_params]
        check_given((), bool(needing), params, {}, *needing[:1])
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        p_leaves = align(treedef, params, "params", updates) if needing else [None] * len(leaves)
        lanes = [
            Lane(*of_rule, updates, treedef)
            for of_rule in zip(self.rules, states, scalars, activity, strict=True)
        ]
        names, constants = tuple(x.names for x in lanes), tuple(x.constants for x in lanes)
        where, plans, cells = [], [], []
        for i, (g, p) in enumerate(zip(leaves, p_leaves, strict=True)):
            takes_part = tuple(lane.takes(i) for lane in lanes)
            if g is None or not any(takes_part):
                continue
            if needing:
                check_pair(g, p, updates, i)
            where.append(i)
            plans.append(Plan(takes_part, names, constants))
            slots, keys = (tuple(x.slots(i) for x in lanes), tuple(x.key(i) for x in lanes))
            cells.append(Cell(g, p, slots, keys))
        try:
            results = self._in_blocks(plans, cells, lanes) if cells else []
        except _InCell as e:
            error = e.error.at(f"updates{nth_path(updates, where[e.number])}")
            raise error from error.__cause__
        for i, (u, slots) in zip(where, results, strict=True):
            leaves[i] = u
            for lane, new in zip(lanes, slots, strict=True):
                lane.put(i, new)
        return treedef.unflatten(leaves), [lane.next_state() for lane in lanes]

    def _in_blocks(
        self, plans: list[Plan], cells: list[Cell], lanes: Sequence[Lane]
    ) -> list[Updated]:
        """Updates all cells; those of repeated blocks, block by block."""
        used = [any(plan.takes_part[k] for plan in plans) for k in range(len(lanes))]
        passed = tuple(x.passed() if there else {} for x, there in zip(lanes, used, strict=True))
        shared = tuple(lane.step for lane in lanes), passed
        pairs = zip(plans, cells, strict=True)
        signatures = tuple((plan, _signature(cell)) for plan, cell in pairs)
        results: list[Updated] = []
        everywhere = Counter(signatures)
        for a, b in pieces(signatures):
            single = b == a + 1
            run = self._each if single else self._block
            times = everywhere if single else Counter(signatures[a:b])
            once = tuple(times[x] == 1 for x in signatures[a:b])
            try:
                results.extend(run(tuple(plans[a:b]), once, cells[a:b], *shared))
            except _InCell as e:
                raise _InCell(e.error, a + e.number) from None
        return results

    def _each(
        self, plans: tuple[Plan, ...], once: tuple[bool, ...], cells: Sequence[Cell], *shared: Any
    ) -> list[Updated]:
        """Updates cells one by one; those whose signature occurs once need no inner `jit`."""
        results = []
        for number, (plan, alone, cell) in enumerate(zip(plans, once, cells, strict=True)):
            run = self._leaf if alone else self._leaf_again
            try:
                results.append(run(plan, cell, *shared))
            except LeafError as e:
                raise _InCell(e, number) from None
        return results


class _InCell(Exception):
    """A `LeafError` with the number of the cell where it was raised."""

    def __init__(self, error: LeafError, number: int):
        super().__init__(str(error))
        self.error, self.number = error, number


def _signature(cell: Cell) -> Hashable:
    # Shapes and dtypes identify cells; if two were confused, `jit` would still trace both.
    return tuple(map(shape_and_dtype, jax.tree.leaves(cell)))
