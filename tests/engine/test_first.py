"""The first states of all optimizers, and slots that are drawn at random."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_donation import buffers
from trees import assert_equal, avals, numbers

import gradtx
from gradtx import Slots, catalog

ENTRIES = catalog.entries()
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
LEAVES = {
    "jax": {"a": numbers((2, 3)), "b": numbers((3,)), "half": numbers((3,), dtype=jnp.bfloat16)},
    "numpy": {"a": np.ones((2, 3), np.float32), "number": 1.0},
}


@pytest.mark.thorough
@each_entry
@pytest.mark.parametrize("kind", LEAVES)
def test_init_gives_the_same_with_and_without_jit(entry, kind):
    params = LEAVES[kind]
    tx = entry.make()
    found, jitted = tx.init(params), jax.jit(tx.init)(params)
    assert_equal(found, jitted)
    assert avals(found) == avals(jitted)
    for state in (found, jitted):
        there = buffers((state, params))
        assert [names for names in there.values() if len(names) > 1] == []


class DrawnState(NamedTuple):
    drawn: object
    used: object


class KeyedState(NamedTuple):
    count: object
    rng_key: object
    drawn: object
    used: object


def bits(key):
    return jax.random.bits(key, (2,))


def leafwise(key, state=KeyedState):
    """A rule that keeps what it draws in `init`, and in the last step if it has keys there."""

    def init(p, key):
        return Slots(drawn=bits(key), used=jnp.zeros(2, jnp.uint32))

    def update(g, s, step, p):
        return g, Slots(drawn=s.drawn, used=bits(s.rng_key) if state is KeyedState else s.used)

    return gradtx.leafwise(state, init, update, key=key, name="drawn")


def matrixwise(key, state=KeyedState):
    """The same for matrices."""

    def init(p, keys):
        return Slots(drawn=jax.vmap(bits)(keys), used=jnp.zeros((len(p), 2), jnp.uint32))

    def update(g, s, step, p):
        own = state is KeyedState
        return g, Slots(drawn=s.drawn, used=jax.vmap(bits)(s.rng_key) if own else s.used)

    return gradtx.matrixwise(state, init, update, key=key, name="drawn")


MATRIX = jnp.zeros((3, 4))
PARAMS = {"a": MATRIX, "b": MATRIX, "c": [MATRIX] * 4, "d": jnp.zeros((2, 2), jnp.bfloat16)}
each_lift = pytest.mark.parametrize("lift", [leafwise, matrixwise])


def drawn(tree):
    """The pairs of numbers, as tuples."""
    return [tuple(row) for x in jax.tree.leaves(tree) for row in np.reshape(x, (-1, 2)).tolist()]


@pytest.mark.parametrize("state", [DrawnState, KeyedState])
@pytest.mark.parametrize(
    ("lift", "make_key"),
    [(leafwise, jax.random.key), (leafwise, jax.random.PRNGKey), (matrixwise, jax.random.key)],
)
def test_each_leaf_has_its_own_key_in_init(lift, state, make_key):
    tx = lift(make_key(0), state)
    with jax.debug_key_reuse(True):
        first = tx.init(PARAMS)
    assert len(set(drawn(first.drawn))) == 7
    assert_equal(tx.init(PARAMS), first)
    assert_equal(jax.jit(lift(make_key(0), state).init)(PARAMS), first)
    assert avals(jax.eval_shape(tx.init, PARAMS)) == avals(first)
    assert not {*drawn(lift(make_key(1), state).init(PARAMS).drawn)} & {*drawn(first.drawn)}
    assert avals(tx.update(PARAMS, first)[1]) == avals(first)


@each_lift
def test_what_is_left_out_does_not_change_the_keys_of_others(lift):
    first = lift(jax.random.key(0)).init(PARAMS)
    without = lift(jax.random.key(0)).init({**PARAMS, "a": None})
    assert without.drawn["a"] is None
    assert_equal(without.drawn["b"], first.drawn["b"])
    mask = {"a": False, "b": True, "c": False, "d": True}
    masked = gradtx.masked(lift(jax.random.key(0)), mask).init(PARAMS)
    assert_equal(masked.inner_state.drawn["d"], first.drawn["d"])


@each_lift
def test_a_key_of_init_is_not_used_in_steps(lift):
    """Neither itself nor as the parent of others; both would give the same numbers here."""
    tx = lift(jax.random.key(0))
    state = tx.init(PARAMS)
    found = drawn(state.drawn)
    for _ in range(3):
        found += drawn([bits(key) for key in jax.random.split(state.rng_key, 3)])
        _, state = tx.update(PARAMS, state)
        found += drawn(state.used)
    assert len(set(found)) == len(found)


@each_lift
def test_optimizers_of_several_keys_at_once(lift):
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.vmap(lambda key: lift(key).init(PARAMS))(keys)
    for i, key in enumerate(keys):
        assert_equal(jax.tree.map(lambda x, i=i: x[i], found.drawn), lift(key).init(PARAMS).drawn)


def test_errors_of_a_keyed_init_name_the_leaf():
    def init(p, key):
        return Slots(drawn=jax.random.normal(key, p.reshape(-1, 4).shape), used=p)

    tx = gradtx.leafwise(DrawnState, init, lambda g, s, step, p: (g, s), key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"params\['v'\]: .*float32 of shape \(3,\), and init"):
        tx.init({"m": MATRIX, "v": jnp.ones(3)})
    state = tx.init({"m": MATRIX})
    with pytest.raises(ValueError, match=r"state.drawn must have shape \(6, 4\), got \(3, 4\)"):
        tx.update({"m": jnp.ones((6, 4))}, state)
