"""Links of a chain that run together: traced as they are, or as one compiled call.

Inside `jit` the links are traced with their numbers as constants. Outside, a segment is one call of
a compiled function. JAX caches its code by the value of the links without their numbers, so that
optimizers made in the same way share it, and `jax.clear_caches()` frees it. Links of unknown origin
have their own code, which is freed with them.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradtx.engine.base import ExtraArgs, OptState, Params, PyTree, Scalar, Updates
from gradtx.engine.concrete import is_traced
from gradtx.engine.first import FrozenForms
from gradtx.engine.links import Active, Link
from gradtx.engine.made import Freezer, Frozen, InTurn, Opaque, Source, thaw
from gradtx.engine.masks import filled
from gradtx.engine.paths import StructureError
from gradtx.engine.rules import LeafError
from gradtx.engine.sweep import Sweep

Result = tuple[Updates, list[OptState]]
Groups = list[tuple[Sweep | None, int, int]]
Given = Sequence[dict[str, Scalar] | None]
Activity = tuple[Active, ...]


def segments(links: Sequence[Link]) -> list["Segment"]:
    """Splits a row of links into segments: of links that can be compiled, and of others."""
    cut = itertools.groupby(links, key=lambda link: link.compiles or _frozen([link]) is not None)
    return [Segment(tuple(part), compiled) for compiled, part in cut]


class Segment:
    """Links that run together.

    Args:
      links: the links.
      compiled: whether they run in one compiled call if nothing is traced.
    """

    def __init__(self, links: tuple[Link, ...], compiled: bool):
        self.links, self.compiled = links, compiled
        self._leafwise = all(link.sweeps for link in links)
        self._uses_params = any(link.needs_params or not link.sweeps for link in links)
        self._groups = _grouped(links)

    @functools.cached_property
    def _ways(self) -> InTurn[Result]:
        """The compiled functions that run the links, the most widely shared first."""
        found = [_frozen(self.links, constant) for constant in (False, True)]
        kept = [functools.partial(_run_frozen, *f) for f in found if f is not None]
        return InTurn([*kept, self._run_own])

    @functools.cached_property
    def _each(self) -> list[FrozenForms]:
        """The frozen forms of each link on its own, without and with constants, if any."""
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
        self, updates: Updates, states: Sequence[OptState], params: Params | None, extra: ExtraArgs
    ) -> Result:
        """Applies the links to the updates as they are."""
        activity = self._activity(filled(updates, params))
        given = [None] * len(self.links)
        return _run(self.links, self._groups, activity, given, updates, states, params, extra)

    def run_compiled(
        self, updates: Updates, states: Sequence[OptState], params: Params | None, extra: ExtraArgs
    ) -> Result:
        """Applies the links to the updates in one compiled call, if they can be compiled."""
        arrays = all(map(_is_array, jax.tree.leaves(extra)))
        if not self.compiled or not (arrays or self._leafwise):
            return self.run(updates, states, params, extra)
        activity = self._activity(filled(updates, params))
        params = params if self._uses_params else None
        pairs = list(zip(self.links, states, strict=True))
        given: Given = [link.outside(state, extra) for link, state in pairs]
        if not arrays:  # they cannot be passed on, so the learning rate must be read from them now
            given = self._with_rates(given, states, extra)
        passed = extra if arrays else {}
        return self._ways(activity, given, updates, tuple(states), params, passed)

    def _with_rates(self, given: Given, states: Sequence[OptState], extra: ExtraArgs) -> Given:
        rows = zip(self.links, given, states, strict=True)
        return [link.with_rate(known or {}, state, extra) for link, known, state in rows]

    def _activity(self, updates: Updates) -> Activity:
        found = []
        for k, link in enumerate(self.links):
            try:
                found.append(link.activity(updates, "updates"))
            except (LeafError, StructureError) as e:
                raise _at(e, k, k) from e.__cause__
        return tuple(found)

    def _run_own(
        self, activity: Activity, given: Given, updates: Updates, states: Any, *rest: Any
    ) -> Result:
        """Runs the links as they are: all numbers except for the learning rate are constants."""
        given = self._with_rates(given, states, rest[-1])
        return self._own(activity, given, updates, states, *rest)

    @functools.cached_property
    def _own(self) -> Callable[..., Result]:
        def own(activity: Activity, *args: Any) -> Result:
            return _run(self.links, _grouped(self.links), activity, *args)

        return jax.jit(own, static_argnums=0)


def _frozen(
    links: Sequence[Link], constant: bool = False
) -> tuple[tuple[Frozen, ...], Sequence[PyTree]] | None:
    freezer = Freezer(constant)
    try:
        return tuple(link.freeze(freezer, nested=False) for link in links), freezer.numbers
    except Opaque:
        return None


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run_frozen(
    frozen: tuple[Frozen, ...], numbers: PyTree, activity: Activity, given: Given, *args: Any
) -> Result:
    source = Source(numbers)
    links = tuple(thaw(link, source) for link in frozen)
    return _run(links, _grouped(links), activity, given, *args)


def _run(
    links: Sequence[Link],
    groups: Groups,
    activity: Activity,
    given: Given,
    updates: Updates,
    states: Sequence[OptState],
    params: Params | None,
    extra: ExtraArgs,
) -> Result:
    """Applies links to the updates; neighbouring rules run together.

    Args:
      links: the links.
      groups: the groups that run together.
      activity: for each link, the leaves on which it acts.
      given: for each link, the values computed for it outside compiled code.
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
    """Returns an error with the numbers of the links that raised it."""
    if isinstance(e, LeafError):
        e.stage += first
    else:
        e.stages = first, last
    return e


def _grouped(links: Sequence[Link]) -> Groups:
    """Groups neighbouring rules: a sweep or `None`, the first link, and the end."""
    groups: Groups = []
    for sweeps, part in itertools.groupby(range(len(links)), key=lambda k: links[k].sweeps):
        numbers = list(part)
        if sweeps:
            a, b = numbers[0], numbers[-1] + 1
            groups.append((Sweep(links[a:b]), a, b))  # type: ignore[arg-type]
        else:
            groups.extend((None, k, k + 1) for k in numbers)
    return groups


def _is_array(x: PyTree) -> bool:
    numeric = (jax.Array, np.ndarray, np.generic, int, float, complex)
    return isinstance(x, numeric) and not isinstance(x, bool)
