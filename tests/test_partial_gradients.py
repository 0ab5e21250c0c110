"""Frozen leaves without a gradient: their `None` changes nothing for the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from representatives import each_engine, first
from trees import loss_around, needed, numbers

import gradtx
from gradtx import catalog

PARAMS = {"a": numbers((2, 3), 1), "b": numbers((3,), 2), "c": numbers((3,), 3)}
GRADS = {**{k: numbers(p.shape, 5) for k, p in PARAMS.items()}, "a": None}
ZEROS = {**GRADS, "a": jnp.zeros((2, 3))}
LABELS = {"a": "freeze", "b": "train", "c": "train"}

WRAPPERS = {
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, lambda step: step > 0),
    "injected": lambda tx: gradtx.chain(tx, gradtx.inject_hyperparams(gradtx.scale)(0.5)),
    "masked": lambda tx: gradtx.chain(
        gradtx.masked(gradtx.scale(0.5), lambda q: jax.tree.map(lambda x: x is q["b"], q)), tx
    ),
    "watch": gradtx.watch,
    "flatten": gradtx.flatten,
    "sam": lambda tx: gradtx.contrib.sam(tx, gradtx.sgd(0.05)),
    "schedule_free": lambda tx: gradtx.contrib.schedule_free(tx, 0.1),
    "mechanize": gradtx.contrib.mechanize,
}


def steps(tx, grads, extra):
    tx = gradtx.partition({"train": tx, "freeze": gradtx.set_to_zero()}, LABELS)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(grads, state, params, **extra)
        params = gradtx.apply_updates(params, updates)
    return params


def check_alike(tx, extra_of):
    partly, wholly = (steps(tx, g, extra_of(g)) for g in (GRADS, ZEROS))
    np.testing.assert_array_equal(partly["a"], PARAMS["a"])
    for name in ("b", "c"):
        assert (partly[name] != PARAMS[name]).any()
        np.testing.assert_allclose(partly[name], wholly[name], rtol=1e-6)


@each_engine
def test_optimizers(entry):
    loss = loss_around(PARAMS, GRADS)
    check_alike(entry.make(), lambda g: needed(entry, loss, PARAMS, g))


@pytest.mark.parametrize("name", list(first(["adagrad", "sgd", "muon"])))
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(wrapper, name):
    check_alike(WRAPPERS[wrapper](catalog.get(name).make(learning_rate=0.1)), lambda g: {})


@pytest.mark.parametrize("grad", [np.zeros(2, jax.dtypes.float0), jnp.zeros(2, bool), None])
def test_frozen_booleans(grad):
    params = {"w": jnp.ones(2), "m": jnp.array([True, False])}
    tx = gradtx.partition(
        {"train": gradtx.adam(0.1), "freeze": gradtx.set_to_zero()}, {"w": "train", "m": "freeze"}
    )
    updates, _ = tx.update({"w": jnp.ones(2), "m": grad}, tx.init(params), params)
    new = gradtx.apply_updates(params, updates)
    np.testing.assert_array_equal(new["m"], params["m"])
    np.testing.assert_allclose(new["w"], 0.9, rtol=1e-6)


def test_masks_inside_of_masks_find_their_leaves():
    """The hidden leaf is `None` and comes first; the inner mask is for the last one."""
    scaled = gradtx.with_extra_args_support(
        gradtx.GradientTransformation(
            lambda p: (), lambda u, s, p=None: (jax.tree.map(lambda x: 2 * x, u), s)
        )
    )
    inner = gradtx.masked(scaled, {"a": False, "b": False, "c": True})
    outer = gradtx.masked(inner, {"a": False, "b": True, "c": True})
    updates, _ = outer.update(GRADS, outer.init(PARAMS), PARAMS)
    assert updates["a"] is None
    np.testing.assert_array_equal(updates["b"], GRADS["b"])
    np.testing.assert_array_equal(updates["c"], 2 * GRADS["c"])
