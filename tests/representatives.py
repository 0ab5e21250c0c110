"""Which cases of a matrix represent the others in the default tests.

The others are marked `thorough`; CI runs them, see `.ci/thorough`.
"""

import itertools

import pytest

from gradtx import catalog
from gradtx.engine.pipeline import pipeline_of

ENTRIES = catalog.entries()


def first_of_each(kind, cases, others=pytest.mark.thorough):
    """The cases, of which all but the first of each kind are marked.

    `kind` is a function of the case's values. A case is one value, a tuple of values or a
    `pytest.param`.
    """
    seen = set()
    for case in cases:
        if not isinstance(case, type(pytest.param())):
            case = pytest.param(*case) if isinstance(case, tuple) else pytest.param(case)
        found = kind(*case.values)
        marks = [*case.marks, others] if found in seen else case.marks
        yield pytest.param(*case.values, id=case.id, marks=marks)
        seen.add(found)


def first(cases):
    """The cases, of which all but the first are marked."""
    return first_of_each(lambda *values: None, cases)


def moved_one_by_one(*axes):
    """The product of the axes; where two values or more are not the first of their axis, marked."""
    for places in itertools.product(*(range(len(axis)) for axis in axes)):
        moved = sum(place > 0 for place in places)
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        yield pytest.param(*values, marks=pytest.mark.thorough if moved > 1 else ())


def links(make):
    """The kinds of links of what a function makes, in their order."""
    return tuple(type(link) for link in pipeline_of(make()).links)


def build(entry):
    """The links of an optimizer in their order, and what they need."""
    return links(entry.make), entry.needs, entry.needs_params, entry.takes_complex


def engines(make):
    """The engines used by what a function makes."""
    return frozenset(links(make))


def engines_of(entry):
    """The engines that an optimizer uses."""
    return engines(entry.make)


def each(entries):
    return pytest.mark.parametrize("entry", list(entries), ids=lambda entry: entry.name)


each_entry = each(ENTRIES)
# For what depends on an optimizer's equations, beside their comparison with the paper.
each_build = each(first_of_each(build, ENTRIES))
# For what the engine does, whatever the equations are.
each_engine = each(first_of_each(engines_of, ENTRIES))
# For what the engine does with the extra arguments of `update`.
each_needs = each(first_of_each(lambda e: (engines_of(e), e.needs, e.fixed_rate), ENTRIES))
