"""Parameters that are held still."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused
from test_conformance import walk

import gradtx

PARAMS = trees.small()
GRADIENTS = [trees.like(PARAMS, i) for i in range(3)]
FROZEN = {"a": True, "b": False, "c": {"d": True}}
MASKS = [FROZEN, lambda tree: FROZEN, {"a": True, "b": False, "c": True}]


@pytest.mark.parametrize("mask", MASKS, ids=["tree", "function", "prefix"])
def test_frozen_leaves_cost_nothing_and_stand_still(mask):
    tx = gradtx.selective_transform(gradtx.adamw(0.1), freeze_mask=mask)
    _, state, params = walk(tx, PARAMS, GRADIENTS)
    trees.assert_equal((params["a"], params["c"]), (PARAMS["a"], PARAMS["c"]))
    alone = walk(gradtx.adamw(0.1), {"b": PARAMS["b"]}, [{"b": g["b"]} for g in GRADIENTS])
    trees.assert_equal(params["b"], alone[2]["b"])
    trees.assert_equal(jax.tree.leaves(state), jax.tree.leaves(alone[1]))
    assert set(state.inner_states) == {"train", "freeze"}


@pytest.mark.parametrize("mask", MASKS, ids=["tree", "function", "prefix"])
def test_freezing_behind_an_optimizer(mask):
    tx = gradtx.chain(gradtx.adamw(0.1), gradtx.freeze(mask))
    updates, _, params = walk(tx, PARAMS, GRADIENTS)
    trees.assert_equal((params["a"], params["c"]), (PARAMS["a"], PARAMS["c"]))
    plain, _, _ = walk(gradtx.adamw(0.1), PARAMS, GRADIENTS)
    trees.assert_ulps(updates["b"], plain["b"], 4)
    assert isinstance(gradtx.freeze(mask).init(PARAMS), gradtx.MaskedState)


@pytest.mark.parametrize("flag", [True, False, jnp.array(True), np.bool_(False)], ids=repr)
def test_all_or_none(flag):
    updates, _, _ = walk(gradtx.freeze(flag), PARAMS, GRADIENTS)
    wanted = jax.tree.map(jnp.zeros_like, PARAMS) if flag else GRADIENTS[-1]
    trees.assert_equal(updates, wanted)
    tx = gradtx.selective_transform(gradtx.scale(1.0), freeze_mask=flag)
    trees.assert_equal(walk(tx, PARAMS, GRADIENTS)[0], wanted)


def test_a_mask_that_is_a_function_freezes_what_it_says_where_optax_freezes_everything():
    def step(library):
        tx = library.selective_transform(library.sgd(1.0), freeze_mask=lambda tree: FROZEN)
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]["b"]

    trees.assert_equal(step(gradtx), -PARAMS["b"])
    trees.assert_equal(jnp.abs(step(optax)), jnp.zeros(3))


def test_integers_may_be_frozen():
    params = {"a": jnp.ones(2), "steps": jnp.array([1, 2])}
    tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask={"a": False, "steps": True})
    updates, _, _ = walk(tx, params, [params])
    trees.assert_equal(updates["steps"], jnp.array([0, 0]))


def test_extra_arguments_reach_what_is_trained():
    tx = gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask=FROZEN)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, learning_rate=2.0)
    trees.assert_equal(updates["b"], -2 * PARAMS["b"])


def test_what_couples_leaves_sees_those_that_are_trained():
    tx = gradtx.selective_transform(gradtx.clip_by_global_norm(1.0), freeze_mask=FROZEN)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_allclose(jnp.linalg.norm(updates["b"]), 1.0, rtol=1e-6)


def test_masks_that_do_not_fit():
    for make in (
        gradtx.freeze,
        lambda mask: gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask=mask),
    ):
        with refused(ValueError, "mask", "params['c']['d']"):
            make({"a": True, "b": False}).init(PARAMS)
        with refused(ValueError, "mask", "['b']", "'no'"):
            make({"a": True, "b": "no", "c": True}).init(PARAMS)
