"""No two leaves of a state share a buffer, with each other or with what the user gave.

Otherwise a donated state fails, or takes the user's arrays with it.
"""

import jax
import jax.numpy as jnp
import pytest
from representatives import each_engine, first
from trees import loss_around, needed

import gradtx
from gradtx import catalog

PARAMS = {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}
GRADS = jax.tree.map(lambda p: 0.1 * p, PARAMS)


def buffers(tree):
    """The paths of the arrays at each address."""
    found = {}
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(x, jax.Array):
            data = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
            if data.size:
                name = jax.tree_util.keystr(path)
                found.setdefault(data.unsafe_buffer_pointer(), []).append(name)
    return found


def as_arrays(entry):
    """The optimizer with all its floating hyperparameters given as arrays, and these."""
    given = {
        name: jnp.array(value, jnp.float32)
        for name, value in {**entry.hyperparameters, **entry.probe}.items()
        if isinstance(value, float) and name not in entry.constants
    }
    return entry.make(**given), given


def injected(entry):
    return gradtx.inject_hyperparams(entry.factory)(**entry.probe), {}


WAYS = {"numbers": lambda entry: (entry.make(), {}), "arrays": as_arrays, "injected": injected}
WRAPPERS = {
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "conditionally_transform": lambda tx: gradtx.conditionally_transform(tx, lambda step: True),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, lambda step: step > 0),
    "masked": lambda tx: gradtx.masked(tx, {"a": True, "b": False}),
    "partition": lambda tx: gradtx.partition({1: tx, 2: tx}, {"a": 1, "b": 2}),
    "watch": gradtx.watch,
    "flatten": gradtx.flatten,
    "sam": lambda tx: gradtx.contrib.sam(tx, gradtx.sgd(0.1)),
    "schedule_free": lambda tx: gradtx.contrib.schedule_free(tx, jnp.array(0.1)),
    "mechanize": gradtx.contrib.mechanize,
}


def check_buffers(tx, given, extra):
    given = {"params": PARAMS, "grads": GRADS, **given}
    state = tx.init(PARAMS)
    for _ in range(2):
        found = buffers(state)
        assert [names for names in found.values() if len(names) > 1] == []
        assert [names for at, names in found.items() if at in buffers(given)] == []
        given["updates"], state = tx.update(GRADS, state, PARAMS, **extra)
    step = jax.jit(lambda state: tx.update(GRADS, state, PARAMS, **extra), donate_argnums=0)
    jax.block_until_ready(step(step(state)[1]))
    assert not any(x.is_deleted() for x in jax.tree.leaves(given))


@pytest.mark.parametrize("way", WAYS)
@each_engine
def test_states_have_their_own_buffers(entry, way):
    tx, given = WAYS[way](entry)
    check_buffers(tx, given, needed(entry, loss_around(PARAMS, GRADS), PARAMS, GRADS))


@pytest.mark.parametrize("name", list(first(["adam", "sgd", "dadapt_adamw"])))
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_states_of_wrappers_have_their_own_buffers(wrapper, name):
    for way in ("arrays", "injected"):
        tx, given = WAYS[way](catalog.get(name))
        check_buffers(WRAPPERS[wrapper](tx), given, {})
