"""Modules that are pytrees and callable, as Equinox's are, are trees wherever trees are taken."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from representatives import first_of_each

import gradtx
from gradtx import catalog
from gradtx.contrib import MuonDimensionNumbers


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Net:
    w: Any
    b: Any

    def __call__(self, x):
        raise AssertionError("the tree was called")


PARAMS = Net(jnp.ones((2, 3)), jnp.ones(3))
MASK = Net(True, False)
DIMENSIONS = Net(MuonDimensionNumbers(), None)


def updates_of(tx, **extra):
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS, **extra)[0]


def tree_arguments():
    for entry in catalog.entries():
        for name in entry.hyperparameters:
            if "mask" in name:
                yield pytest.param(entry, name, MASK, id=f"{entry.name}-{name}")
            elif "dimension_numbers" in name:
                yield pytest.param(entry, name, DIMENSIONS, id=f"{entry.name}-{name}")


@pytest.mark.parametrize(
    "entry, name, tree", list(first_of_each(lambda entry, name, tree: name, tree_arguments()))
)
def test_a_callable_tree_is_what_a_function_that_returns_it_is(entry, name, tree):
    known = {"value": 1.0, "obj_fn": lambda net: jnp.sum(net.w**2) + jnp.sum(net.b**2)}
    extra = {name: known[name] for name in entry.needs}
    found, expected = (
        updates_of(entry.make(**{name: given}), **extra) for given in (tree, lambda _: tree)
    )
    assert isinstance(found, Net)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), found, expected))


@pytest.mark.parametrize(
    "make",
    [
        lambda tree: gradtx.masked(gradtx.scale(3.0), tree),
        lambda tree: gradtx.selective_transform(gradtx.scale(3.0), freeze_mask=Net(False, True)),
        lambda tree: gradtx.conditionally_mask(
            gradtx.masked(gradtx.scale(3.0), tree), lambda step: True
        ),
        lambda tree: gradtx.partition(
            {"a": gradtx.scale(3.0), "b": gradtx.identity()}, Net("a", "b")
        ),
    ],
)
def test_wrappers_take_it_for_a_tree(make):
    updates = updates_of(make(MASK))
    assert bool(jnp.all(updates.w == 3))
    assert updates.b.shape == (3,)


def test_freeze_takes_it_for_a_tree():
    updates = updates_of(gradtx.freeze(MASK))
    assert bool(jnp.all(updates.w == 0))
    assert bool(jnp.all(updates.b == 1))


def test_inject_hyperparams_takes_it_for_a_tree():
    tx = gradtx.inject_hyperparams(gradtx.add_decayed_weights)(0.5, mask=MASK)
    updates = updates_of(tx)
    assert bool(jnp.all(updates.w == 1.5))
    assert bool(jnp.all(updates.b == 1))


def test_a_mask_that_is_taken_for_a_schedule_is_refused():
    tx = gradtx.inject_hyperparams(gradtx.adamw)(0.1, mask=lambda params: True)
    with pytest.raises(
        TypeError, match=r"mask of adamw was used as a schedule.* add 'mask' to static_args"
    ):
        tx.init(PARAMS)
    tx = gradtx.inject_hyperparams(gradtx.adamw)(0.1, mask=lambda params: params.w)
    with pytest.raises(AttributeError) as failure:
        tx.init(PARAMS)
    assert "add 'mask' to static_args" in failure.value.__notes__[0]
