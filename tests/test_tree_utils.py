"""The longer names are the shorter ones."""

import inspect

import jax.numpy as jnp
import optax
import pytest

from gradtx import tree, tree_utils

NAMES = sorted(n for n in vars(optax.tree) if not n.startswith("_"))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_optax_is_in_both(name):
    if not callable(getattr(optax.tree, name)):
        return
    ours = getattr(tree, name)
    assert getattr(tree_utils, f"tree_{name}") is ours
    wanted = inspect.signature(getattr(optax.tree, name)).parameters.values()
    found = inspect.signature(ours).parameters.values()
    assert [(p.name, p.kind) for p in found] == [(p.name, p.kind) for p in wanted]
    assert [p.default for p in found] == [p.default for p in wanted]
    assert inspect.getdoc(ours)


def test_there_are_as_many_as_in_optax():
    assert len([n for n in NAMES if callable(getattr(optax.tree, n))]) == 35


def test_old_names():
    x = {"a": jnp.array([3.0, -4.0])}
    assert tree_utils.tree_scalar_mul is tree.scale
    assert tree_utils.tree_add_scalar_mul is tree.add_scale
    assert tree_utils.tree_l1_norm(x) == 7
    assert tree_utils.tree_l2_norm(x) == 5
    assert tree_utils.tree_l2_norm(x, squared=True) == 25
    assert tree_utils.tree_linf_norm(x) == 4
