"""What the catalog says of each optimizer: its family, and on what it acts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from representatives import ENTRIES, each, first_of_each
from trees import numbers

import gradtx
from gradtx import catalog

SHAPES = {"matrix": (4, 3), "other": (3, 5), "kernel": (3, 3, 2, 2), "vector": (3,)}
STEPS = 30


def test_families_are_few_and_have_members():
    found = {entry.family for entry in ENTRIES}
    assert found == set(catalog.FAMILIES) and len(found) <= 12
    for family in found:
        assert sum(entry.family == family for entry in ENTRIES) >= 3, family


def test_a_family_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="catalog: family of newton must be one of 'momentum'"):

        @catalog.optimizer("Newton (1685)", family="adams", probe={})
        def newton():
            raise NotImplementedError

    assert "newton" not in catalog.names()


def updates_of(entry):
    """A compiled function from the gradients and losses of all steps to the updates.

    The Hessian of the loss has the squared gradients on its diagonal: it changes with them.
    """
    tx, params = entry.make(), {name: numbers(shape, 1) for name, shape in SHAPES.items()}

    def step(carry, given):
        params, state = carry
        g, value = given

        def loss(p):
            return sum(jnp.sum((c * x) ** 2) for c, x in zip(g.values(), p.values(), strict=True))

        more = {"value": value, "value_fn": loss, "obj_fn": loss, "grad": g}
        updates, state = tx.update(g, state, params, **more)
        return (gradtx.apply_updates(params, updates), state), updates

    return jax.jit(lambda *given: jax.lax.scan(step, (params, tx.init(params)), given)[1])


def reach(run, leaf):
    """How far the updates depend on one element's gradients: on it alone, its leaf, or the tree."""
    # Gradients that do not change at first, by which SWATS switches; then of many sizes.
    sizes = np.repeat([1.0, 0.1, 10.0], STEPS // 3)
    value = jnp.linspace(2.0, 0.01, STEPS)
    g = {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        g[name] = sizes.reshape(-1, *(1 for _ in shape)) * numbers((STEPS, *shape), number)
        g[name] = g[name].at[: STEPS // 3].set(g[name][0])
    element = (0,) * len(SHAPES[leaf])
    moved = {**g, leaf: g[leaf].at[:, *element].multiply(-3.0)}
    before, after = run(g, value), run(moved, value)
    changed = {name: np.any(np.array(before[name] != after[name]), 0) for name in SHAPES}
    inside = changed.pop(leaf)
    assert inside[element]
    inside[element] = False
    return "tree" if any(map(np.any, changed.values())) else "leaf" if inside.any() else "elements"


@each(first_of_each(lambda entry: (entry.acts_on, entry.family), ENTRIES))
def test_on_what_it_acts(entry):
    run = updates_of(entry)
    found = {reach(run, leaf) for leaf in ("matrix", "kernel", "vector")}
    farthest = next(how for how in ("tree", "leaf", "elements") if how in found)
    axes = any("weight_dimension_numbers" in name for name in entry.hyperparameters)
    assert entry.acts_on == ("matrices" if axes and farthest == "leaf" else farthest)
