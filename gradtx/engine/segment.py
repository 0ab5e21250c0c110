"""Links of a chain that run together: traced as they are, or as one compiled call.

Inside of somebody's `jit` the links are traced with their numbers as constants. Outside, a segment
is one call of a compiled function. Its code is kept by JAX, by the value of the links without their
numbers, so that optimizers which are made alike share it and `jax.clear_caches()` frees it. Links
of which it is not known how they were made have code of their own, which goes with them.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradtx.engine.base import OptState, Params, Updates
from gradtx.engine.concrete import is_traced
from gradtx.engine.links import Active, Link
from gradtx.engine.made import Freezer, Frozen, InTurn, Opaque, Source, thaw
from gradtx.engine.paths import StructureError
from gradtx.engine.rules import LeafError
from gradtx.engine.sweep import Sweep

Result = tuple[Updates, list[OptState]]
Groups = list[tuple[Sweep | None, int, int]]


def segments(links: Sequence[Link]) -> list["Segment"]:
    """Cuts a row of links into segments: runs of those that can be compiled, and the others."""
    cut = itertools.groupby(links, key=lambda link: link.compiles or _frozen([link]) is not None)
    return [Segment(tuple(part), compiled) for compiled, part in cut]


class Segment:
    """Links that run together.

    Args:
      links: the links.
      compiled: whether they run in one compiled call where nothing is traced.
    """

    def __init__(self, links: tuple[Link, ...], compiled: bool):
        self.links, self.compiled = links, compiled
        self._leafwise = all(link.sweeps for link in links)
        self._uses_params = any(link.needs_params or not link.sweeps for link in links)
        self._groups = _grouped(links)

    @functools.cached_property
    def _ways(self) -> InTurn[Result]:
        """The ways to run it compiled, those first whose code serves most."""
        found = [_frozen(self.links, constant) for constant in (False, True)]
        kept = [functools.partial(_run_frozen, *f) for f in found if f is not None]
        return InTurn([*kept, self._run_own])

    @functools.cached_property
    def _each(self) -> list[list[Any]]:
        """Each link on its own, frozen in the same two ways, as far as it can be."""
        both = [[_frozen([link], constant) for constant in (False, True)] for link in self.links]
        return [[(f[0][0], f[1]) for f in ways if f is not None] for ways in both]

    def init(self, params: Params) -> list[OptState]:
        """Returns each link's first state."""
        states: list[OptState] = []
        traced = is_traced(params)
        for k, link in enumerate(self.links):
            try:
                active = link.activity(params, "params")
                states.append(link.init(params, active, () if traced else self._each[k]))
            except (LeafError, StructureError) as e:
                raise _at(e, k, k) from e.__cause__
        return states

    def run(
        self,
        updates: Updates,
        states: Sequence[OptState],
        params: Params | None,
        extra: dict[str, Any],
    ) -> Result:
        """Takes the updates through the links as they are."""
        activity = self._activity(updates)
        given = [None] * len(self.links)
        return _run(self.links, self._groups, activity, given, updates, states, params, extra)

    def run_compiled(
        self,
        updates: Updates,
        states: Sequence[OptState],
        params: Params | None,
        extra: dict[str, Any],
    ) -> Result:
        """Takes the updates through the links in one compiled call, if they can be compiled."""
        arrays = all(map(_is_array, jax.tree.leaves(extra)))
        if not self.compiled or not (arrays or self._leafwise):
            return self.run(updates, states, params, extra)
        activity = self._activity(updates)
        params = params if self._uses_params else None
        pairs = list(zip(self.links, states, strict=True))
        given = [link.outside(state, extra) for link, state in pairs]
        if not arrays:  # which cannot be passed on, so that the rate that is given here is read now
            given = self._with_rates(given, states, extra)
        passed = extra if arrays else {}
        return self._ways(activity, given, updates, tuple(states), params, passed)

    def _with_rates(self, given: Any, states: Any, extra: dict[str, Any]) -> list[Any]:
        rows = zip(self.links, given, states, strict=True)
        return [link.with_rate(known, state, extra) for link, known, state in rows]

    def _activity(self, updates: Updates) -> tuple[Active, ...]:
        found = []
        for k, link in enumerate(self.links):
            try:
                found.append(link.activity(updates, "updates"))
            except (LeafError, StructureError) as e:
                raise _at(e, k, k) from e.__cause__
        return tuple(found)

    def _run_own(
        self, activity: Any, given: Any, updates: Any, states: Any, params: Any, extra: Any
    ) -> Result:
        """Runs the links as they are: all numbers are constants but for the learning rate."""
        given = self._with_rates(given, states, extra)
        return self._own(activity, given, updates, states, params, extra)

    @functools.cached_property
    def _own(self) -> Callable[..., Result]:
        def own(activity: Any, *args: Any) -> Result:
            return _run(self.links, _grouped(self.links), activity, *args)

        return jax.jit(own, static_argnums=0)


def _frozen(links: Sequence[Link], constant: bool = False) -> tuple[tuple[Frozen, ...], Any] | None:
    freezer = Freezer(constant)
    try:
        return tuple(link.freeze(freezer, nested=False) for link in links), freezer.numbers
    except Opaque:
        return None


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run_frozen(
    frozen: tuple[Frozen, ...], numbers: Any, activity: Any, given: Any, *args: Any
) -> Result:
    source = Source(numbers)
    links = tuple(thaw(link, source) for link in frozen)
    return _run(links, _grouped(links), activity, given, *args)


def _run(
    links: Sequence[Link],
    groups: Groups,
    activity: Sequence[Active],
    given: Sequence[Any],
    updates: Updates,
    states: Sequence[OptState],
    params: Params | None,
    extra: dict[str, Any],
) -> Result:
    """Takes the updates through links, those that are rules together with their neighbours.

    Args:
      links: the links.
      groups: how they run together.
      activity: for each link, on which leaves it acts.
      given: for each link, what was computed for it outside of compiled code.
      updates: the updates.
      states: each link's state.
      params: the parameters, or `None`.
      extra: the extra arguments.
    """
    done: list[OptState] = []
    for sweep, a, b in groups:
        try:
            if sweep is None:
                updates, new = links[a].update(updates, states[a], params, extra, activity[a])
                done.append(new)
                continue
            scalars = [
                rule.common(rule.clock(state), extra, known)
                for rule, state, known in zip(sweep.rules, states[a:b], given[a:b], strict=True)
            ]
            updates, news = sweep.update(updates, states[a:b], params, scalars, activity[a:b])
            done.extend(news)
        except (LeafError, StructureError) as e:
            raise _at(e, a, b - 1) from e.__cause__
    return updates, done


def _at(e: LeafError | StructureError, first: int, last: int) -> Exception:
    """Returns an error with the numbers of the links that met it."""
    if isinstance(e, LeafError):
        e.stage += first
    else:
        e.stages = first, last
    return e


def _grouped(links: Sequence[Link]) -> Groups:
    """Puts neighbouring rules together: a sweep or none, with the first link and the next one."""
    groups: Groups = []
    for sweeps, part in itertools.groupby(range(len(links)), key=lambda k: links[k].sweeps):
        numbers = list(part)
        if sweeps:
            a, b = numbers[0], numbers[-1] + 1
            groups.append((Sweep(links[a:b]), a, b))  # type: ignore[arg-type]
        else:
            groups.extend((None, k, k + 1) for k in numbers)
    return groups


def _is_array(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic, int, float, complex)) and not (
        isinstance(x, bool)
    )
