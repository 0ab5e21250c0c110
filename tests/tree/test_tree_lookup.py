"""Finding and setting parts of states by name, ours and optax's."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from jax.tree_util import DictKey, GetAttrKey, SequenceKey
from test_conformance import ENTRIES

import gradtx
from gradtx import tree
from gradtx._roles import declaration_of
from gradtx.tree_utils import NamedTupleKey

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


def halve(count):
    return 0.5**count


def paths(state, key, filtering=None):
    return [path for path, _ in tree.get_all_with_path(state, key, filtering)]


# ---- What a name finds ------------------------------------------------------------------------


class Inner(NamedTuple):
    count: Any
    child: Any = ()


def test_names_of_all_kinds():
    layer = trees.Layer(weight=1.0, bias=2.0)
    state = [{"x": Inner(1, {"count": 2})}, (layer, None)]
    assert tree.get_all_with_path(state, "count") == [
        ((SequenceKey(0), DictKey("x"), NamedTupleKey("Inner", "count")), 1),
        ((SequenceKey(0), DictKey("x"), NamedTupleKey("Inner", "child"), DictKey("count")), 2),
    ]
    weights = tree.get_all_with_path(state, "weight")
    assert weights == [((SequenceKey(1), SequenceKey(0), GetAttrKey("weight")), 1.0)]
    assert tree.get(state, "Inner") == state[0]["x"]
    assert tree.get(state, "Layer") is layer
    assert tree.get(state, "x") == state[0]["x"]
    assert tree.get({0: "zero"}, 0) == "zero"


def test_what_is_near_comes_before_what_is_below():
    state = {"k": 0, "a": {"b": {"k": 1}}, "z": {"k": 2}, "y": {"k": {"k": 3}}}
    assert [v for _, v in tree.get_all_with_path(state, "k")] == [0, 1, {"k": 3}, 3, 2]


@pytest.mark.parametrize("state", [(), None, jnp.ones(3), 1.0, {}, [()]], ids=str)
def test_nothing_to_find(state):
    assert tree.get_all_with_path(state, "a") == []
    assert tree.get(state, "a") is None
    assert tree.get(state, "a", 7) == 7
    with pytest.raises(KeyError, match=r"tree\.set: nothing is named 'a'"):
        tree.set(state, a=1)


def test_a_field_that_is_none_is_found():
    assert tree.get_all_with_path({"a": None}, "a") == [((DictKey("a"),), None)]
    assert tree.set({"a": None, "b": 1}, a=3) == {"a": 3, "b": 1}


def test_several_matches_are_told():
    state = ({"lr": 1.0}, Inner(0, {"lr": 2.0}))
    with pytest.raises(
        KeyError, match=r"'lr' is ambiguous, found at \[0\]\['lr'\], \[1\]\.child\['lr'\]; select"
    ):
        tree.get(state, "lr")
    assert tree.get(state, "lr", filtering=lambda path, value: value > 1) == 2.0
    assert tree.get(state, "lr", filtering=lambda path, value: path[0] == SequenceKey(0)) == 1.0
    assert tree.get(state, "lr", -1.0, filtering=lambda path, value: False) == -1.0
    with pytest.raises(KeyError, match=r"\[0\]\.count of Inner, \[1\]\.count of Inner"):
        tree.get((Inner(0), Inner(1)), "count")


def test_optax_finds_the_same_in_optax_states():
    tx = optax.chain(
        optax.add_noise(0.1, 0.5, 0),
        optax.adamw(halve),
        optax.inject_hyperparams(optax.sgd)(learning_rate=halve, momentum=0.9),
        optax.masked(optax.adam(0.1), {"w": True, "b": False}),
    )
    state = tx.init(PARAMS)
    known = ("count", "mu", "learning_rate", "trace", "ScaleByAdamState", "rng_key", "nothing", "w")
    for key in known:
        theirs = {tuple(map(str, p)): x for p, x in optax.tree.get_all_with_path(state, key)}
        ours = {tuple(map(str, p)): x for p, x in tree.get_all_with_path(state, key)}
        assert ours.keys() == theirs.keys() and all(ours[p] is theirs[p] for p in ours)
        assert bool(ours) == (key != "nothing")


# ---- Fields that yield ------------------------------------------------------------------------


def states_in(node):
    """All NamedTuples in a state."""
    found = [node] if hasattr(node, "_fields") else []
    below = node.values() if isinstance(node, dict) else node if isinstance(node, tuple) else ()
    return found + [state for x in below for state in states_in(x)]


def only_tells(state, key):
    return declaration_of(state).role(key).kind == "rate"


def repeats(state, key):
    return declaration_of(state).role(key).repeats


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_yields_never_makes_a_name_ambiguous(entry):
    state = jax.eval_shape(entry.make().init, PARAMS)
    for key in ("count", "learning_rate"):
        having = [s for s in states_in(state) if key in s._fields]
        readings = [s for s in having if only_tells(s, key)]
        own = [s for s in having if not (only_tells(s, key) or repeats(s, key))]
        if len(own) > 1 or (not own and len(readings) > 1):
            with pytest.raises(KeyError, match="select one"):
                tree.get(state, key)
        elif having:
            assert tree.get(state, key) is getattr((own or having)[-1], key)
        else:
            assert tree.get(state, key) is None


def test_the_count_of_the_rule_comes_first():
    for make in (gradtx.adam, gradtx.adamw, gradtx.lion):
        state = make(halve).init(PARAMS)
        assert len(paths(state, "count")) == 1
        assert paths(state, "count")[0][-1].tuple_name.startswith("ScaleBy")
        assert paths(state, "count")[0][-1].tuple_name != "ScaleByLearningRateState"
    state = gradtx.chain(gradtx.adam(0.1), gradtx.adam(halve)).init(PARAMS)
    assert len(paths(state, "count")) == 2
    with pytest.raises(KeyError, match=r"\[0\]\[0\]\.count of ScaleByAdamState"):
        tree.get(state, "count")


def test_counts_that_only_repeat_are_never_ambiguous():
    tx = gradtx.chain(gradtx.add_decayed_weights(halve), gradtx.sgd(halve))
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert tree.get(state, "count") == 1
    assert len(paths(state, "count")) == 2
    by_class = tree.get(
        state,
        "count",
        filtering=lambda path, _: path[-1].tuple_name == "AddDecayedWeightsState",
    )
    assert by_class == 1


def test_the_rate_of_the_last_step():
    for tx in (gradtx.sgd(halve), gradtx.adam(halve)):
        state = tx.init(PARAMS)
        for wanted in (1.0, 0.5, 0.25):
            _, state = tx.update(PARAMS, state, PARAMS)
            assert tree.get(state, "learning_rate") == wanted


def test_two_readings_are_ambiguous():
    labels = {"w": "slow", "b": "fast"}
    tx = gradtx.partition({"slow": gradtx.adam(0.1), "fast": gradtx.adam(0.2)}, labels)
    state = tx.init(PARAMS)
    with pytest.raises(KeyError, match=r"inner_states.*'fast'.*'slow'.*select one"):
        tree.get(state, "learning_rate")
    slow = tree.get(state, "learning_rate", filtering=lambda path, _: DictKey("slow") in path)
    np.testing.assert_allclose(slow, 0.1)


class Wrapped(NamedTuple):
    """The state of a wrapper that holds the hyperparameters of an optimizer."""

    hyperparams: dict
    inner_state: Any


def test_a_hyperparameter_comes_before_the_reading():
    state = Wrapped({"learning_rate": jnp.float32(0.5)}, gradtx.adam(0.1).init(PARAMS))
    assert tree.get(state, "learning_rate") == 0.5
    state = (state, Wrapped({"learning_rate": jnp.float32(0.25)}, gradtx.sgd(0.1).init(PARAMS)))
    assert [v for _, v in tree.get_all_with_path(state, "learning_rate")] == [0.5, 0.25]
    with pytest.raises(KeyError, match=r"\[0\]\.hyperparams\['learning_rate'\], \[1\]"):
        tree.get(state, "learning_rate")


def test_injected_hyperparameters():
    tx = gradtx.inject_hyperparams(gradtx.adam)(learning_rate=1.0)
    state = tree.set(tx.init(PARAMS), learning_rate=2.0, b1=0.5)
    assert tree.get(state, "learning_rate") == 2.0
    assert tree.get(state, "b1") == 0.5
    updates, _ = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(updates["b"], -2.0 * jnp.ones(3), rtol=1e-6)


# ---- Setting ----------------------------------------------------------------------------------


def test_setting_keeps_everything_else():
    state = gradtx.adamw(0.1).init(PARAMS)
    new = tree.set(state, mu={"w": 1, "b": 2}, nu=None)
    assert new[0].mu == {"w": 1, "b": 2} and new[0].nu is None
    assert new[0].count is state[0].count
    assert new[1:] == state[1:]
    assert jax.tree.structure(state) == jax.tree.structure(gradtx.adamw(0.1).init(PARAMS))


def test_setting_the_count_sets_all_clocks():
    """As in optax, so that a schedule goes on from there."""
    tx = gradtx.chain(gradtx.add_decayed_weights(halve), gradtx.adam(halve))
    state = tree.set(tx.init(PARAMS), count=3)
    counts = [x for x in jax.tree.leaves(state) if x.dtype == jnp.int32]
    assert len(counts) == 3 and all(x == 3 for x in counts)
    _, state = tx.update(PARAMS, state, PARAMS)
    assert tree.get(state, "learning_rate") == 0.125


def test_a_reading_cannot_be_set():
    state = gradtx.adam(0.1).init(PARAMS)
    with pytest.raises(
        KeyError,
        match=r"'learning_rate' at \[1\]\.learning_rate of ScaleByLearningRateState only reports",
    ):
        tree.set(state, learning_rate=0.2)
    with pytest.raises(KeyError, match="inject_hyperparams"):
        tree.set(state, lambda path, value: True, learning_rate=0.2)


def test_a_reading_beside_what_is_set_stays():
    state = Wrapped({"learning_rate": jnp.float32(0.5)}, gradtx.adam(0.1).init(PARAMS))
    new = tree.set(state, learning_rate=0.25)
    assert new.hyperparams["learning_rate"] == 0.25
    trees.assert_equal(new.inner_state, state.inner_state)


def test_filters():
    nested = {"a": {"a": 1.0}, "b": {"a": 1}}
    assert tree.set(nested, lambda _, v: isinstance(v, float), a=2.0) == {
        "a": {"a": 2.0},
        "b": {"a": 1},
    }
    assert tree.set(nested, lambda _, v: isinstance(v, dict), a={"c": 0}) == {
        "a": {"c": 0},
        "b": {"a": 1},
    }
    assert tree.set({"a": {"a": 1}}, a=2) == {"a": 2}
    with pytest.raises(KeyError, match="nothing passes the filter and is named 'a'; the names are"):
        tree.set(nested, lambda _, v: False, a=1)


def test_setting_a_whole_state():
    state = gradtx.adam(0.1).init(PARAMS)
    other = state[0]._replace(count=jnp.int32(5))
    assert tree.set(state, ScaleByAdamState=other)[0] is other


def test_dataclasses():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class State:
        count: Any
        inner: Any

    state = State(jnp.int32(1), State(jnp.int32(2), ()))
    new = tree.set(state, lambda path, _: len(path) == 2, count=9)
    assert new.count == 1 and new.inner.count == 9
    assert tree.get(state, "count", filtering=lambda path, _: len(path) == 1) == 1


@pytest.mark.parametrize(
    ("old", "new", "dtype"),
    [
        (jnp.int32(1), 2, "int32"),
        (jnp.float32(1), 2, "float32"),
        (jnp.float16(1), 0.5, "float16"),
        (jnp.float32(1), True, "float32"),
        (jnp.float32(1), jnp.bfloat16(2), "bfloat16"),  # an array says what it wants to be
    ],
)
def test_python_numbers_take_the_dtype_that_was_there(old, new, dtype):
    found = tree.set({"x": old}, x=new)["x"]
    assert found.dtype == dtype and found == new and not jax.typeof(found).weak_type


def test_numbers_that_would_be_rounded_stay():
    assert tree.set({"x": jnp.int32(1)}, x=2.5) == {"x": 2.5}
    assert tree.set({"x": jnp.ones(2)}, x=2.5) == {"x": 2.5}


def test_setting_does_not_compile_again():
    tx = gradtx.sgd(halve)
    traced = []

    @jax.jit
    def step(state):
        traced.append(state)
        return tx.update(PARAMS, state, PARAMS)[1]

    state = step(tx.init(PARAMS))
    step(tree.set(state, count=7))
    assert len(traced) == 1


def test_under_jit():
    state = gradtx.adam(halve).init(PARAMS)

    @jax.jit
    def f(state, count):
        return tree.set(state, count=count), tree.get(state, "learning_rate")

    new, rate = f(state, 5)
    assert tree.get(new, "count") == 5 and rate == 1.0


def test_keys_compare_and_print():
    key = NamedTupleKey("A", "b")
    assert key == NamedTupleKey("A", "b") != NamedTupleKey("A", "c")
    assert len({key, NamedTupleKey("A", "b")}) == 1
    assert str(key) == "A.b"
    assert repr(key) == "NamedTupleKey(tuple_name='A', name='b')"
