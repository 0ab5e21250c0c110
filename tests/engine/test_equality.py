"""Transformations are values: equal if made alike, hashable, and picklable."""

import copy
import pickle
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conformance import each_entry

import gradtx
from gradtx import schedules


def decays(tree):
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, tree)


def halved(count):
    return 0.5**count


COMPOSED = {
    "chain": lambda r: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(r)),
    "named_chain": lambda r: gradtx.named_chain(("a", gradtx.trace(0.9)), ("b", gradtx.sgd(r))),
    "schedule": lambda r: gradtx.adamw(gradtx.warmup_cosine_decay_schedule(0.0, r, 10, 100)),
    "joined schedules": lambda r: gradtx.sgd(
        schedules.join_schedules(
            [schedules.linear_schedule(0.0, r, 5), schedules.cosine_decay_schedule(r, 10)], [5]
        )
    ),
    "own schedule": lambda r: gradtx.chain(gradtx.sgd(halved), gradtx.scale(r)),
    "mask": lambda r: gradtx.masked(gradtx.adam(r), {"a": True, "b": False}),
    "mask function": lambda r: gradtx.adamw(r, mask=decays),
    "array mask": lambda r: gradtx.adamw(r, mask={"a": np.array(True), "b": np.array(False)}),
    "partition": lambda r: gradtx.partition(
        {"x": gradtx.sgd(r), "y": gradtx.adam(r)}, {"a": "x", "b": "y"}
    ),
    "MultiSteps": lambda r: gradtx.MultiSteps(gradtx.adam(r), 2),
    "injected": lambda r: gradtx.inject_hyperparams(gradtx.adam)(r, b1=0.8),
    "injected schedule": lambda r: gradtx.inject_hyperparams(gradtx.adam)(
        schedules.linear_schedule(0.0, r, 5)
    ),
    "guard": lambda r: gradtx.apply_if_finite(gradtx.adam(r), 3),
    "lookahead": lambda r: gradtx.lookahead(gradtx.sgd(r), 5, 0.5),
    "watched": lambda r: gradtx.watch(gradtx.adam(r)),
    "stored": lambda r: gradtx.store_as(gradtx.adam(r), nu=jnp.bfloat16),
    "flattened": lambda r: gradtx.flatten(gradtx.adam(r)),
    "array": lambda r: gradtx.adam(jnp.float32(r)),
    "frozen leaves": lambda r: gradtx.chain(gradtx.freeze({"a": True, "b": False}), gradtx.sgd(r)),
    "sam": lambda r: gradtx.contrib.sam(gradtx.sgd(r), gradtx.sgd(r)),
}


def check_value(make, other):
    one, two = make(), make()
    assert one is not two
    assert one == two and hash(one) == hash(two)
    assert one != other
    again = pickle.loads(pickle.dumps(one))
    assert again == one and repr(again) == repr(one)
    assert copy.deepcopy(one) == copy.copy(one) == one
    return one, again


@each_entry
def test_optimizers_of_equal_hyperparameters_are_equal(entry):
    one, again = check_value(entry.make, gradtx.scale(2.0))
    params = {"w": jnp.ones((2, 3))}
    states = [jax.eval_shape(tx.init, params) for tx in (one, again)]
    assert states[0] == states[1]


@pytest.mark.parametrize("name", COMPOSED)
def test_compositions_are_equal(name):
    make = COMPOSED[name]
    check_value(lambda: make(0.5), make(0.25))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (lambda: gradtx.sgd(1.0), lambda: gradtx.sgd(1)),  # an integer rate keeps integers
        (lambda: gradtx.sgd(0.1), lambda: gradtx.sgd(0.1, nesterov=True)),
        (lambda: gradtx.scale(0.0), lambda: gradtx.scale(-0.0)),
        (lambda: gradtx.adam(np.float32(0.1)), lambda: gradtx.adam(np.float64(0.1))),
        (lambda: gradtx.adam(jnp.float32(0.1)), lambda: gradtx.adam(jnp.float32(0.2))),
        (lambda: gradtx.adam(0.1), lambda: gradtx.adamw(0.1, weight_decay=0.0)),
        (lambda: gradtx.sgd(lambda t: 0.1), lambda: gradtx.sgd(lambda t: 0.1)),
        (lambda: gradtx.chain(gradtx.sgd(0.1)), lambda: gradtx.sgd(0.1)),
    ],
)
def test_others_are_not(one, two):
    assert one() != two()
    assert one() != (one().init, two().update)


def test_nothing_is_compiled_twice_for_equal_optimizers():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def step(tx, g, state):
        traces.append(tx)
        return tx.update(g, state, g)

    g = {"a": jnp.ones(3), "b": jnp.ones(3)}
    for make in (partial(gradtx.adamw, 1e-3), partial(COMPOSED["partition"], 0.1)):
        before = len(traces)
        for _ in range(3):
            tx = make()
            step(tx, g, tx.init(g))
        assert len(traces) == before + 1


def test_a_pickled_optimizer_steps_as_before():
    g = {"a": jnp.array([1.0, -2.0]), "b": jnp.ones((2, 2))}
    pairs = gradtx.LookaheadParams(g, g)
    for name, make in COMPOSED.items():
        tx = make(0.5)
        again = pickle.loads(pickle.dumps(tx))
        params = pairs if name == "lookahead" else g
        one, two = (t.update(g, t.init(params), params)[0] for t in (tx, again))
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_another_process_reads_it(tmp_path):
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    path = tmp_path / "tx.pickle"
    path.write_bytes(pickle.dumps(tx))
    code = (
        f"import pickle; tx = pickle.load(open({str(path)!r}, 'rb')); print(tx.init(1.0)[1][0].mu)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "0.0"


def test_what_cannot_be_pickled_says_why():
    @gradtx.piece
    def halve():
        return gradtx.scale(0.5)

    with pytest.raises(pickle.PicklingError, match=r"halve.*top of its module, test_equality"):
        pickle.dumps(halve())
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(gradtx.sgd(lambda t: 0.1))
    assert halve() == halve()
    assert copy.deepcopy(halve()) == halve()


def test_a_rule_without_a_factory_equals_itself():
    def update(g, s, step, p):
        return 2 * g, gradtx.Slots()

    tx = gradtx.leafwise(gradtx.EmptyState, None, update)
    assert tx == tx and gradtx.chain(tx, tx) == gradtx.chain(tx, tx)
    assert tx != gradtx.leafwise(gradtx.EmptyState, None, update)


def test_traced_hyperparameters_have_no_equals():
    def loss(rate):
        one, two = gradtx.sgd(rate), gradtx.sgd(rate + 1)
        assert one == gradtx.sgd(rate) and one != two
        return one.update(1.0, one.init(1.0))[0]

    assert jax.grad(loss)(0.5) == -1
