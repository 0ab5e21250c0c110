"""Names of what a state holds: unique, readable, and the same when the chain around it changes."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings, strategies as st
from test_conformance import each_entry
from trees import Layer, Pair, small

import gradtx
from gradtx.state.naming import named_leaves


def names(tx, params=None):
    state = jax.eval_shape(tx.init, small() if params is None else params)
    return [name for name, _ in named_leaves(state)]


@each_entry
def test_every_leaf_of_every_optimizer_has_its_own_name(entry):
    state = jax.eval_shape(entry.make().init, small())
    named = named_leaves(state)
    assert [id(leaf) for _, leaf in named] == [id(leaf) for leaf in jax.tree.leaves(state)]
    assert len(dict(named)) == len(named)
    for name, _ in named:
        piece, field, *_ = [part for part in name.split("/") if not part.isdigit()]
        assert piece.islower() and field, name
        assert not name[0].isdigit(), f"{name} begins with a place in a tuple"


ADAM = [
    "scale_by_adam/count",
    *("scale_by_adam/mu/w", "scale_by_adam/nu/w"),
    *("scale_by_learning_rate/count", "scale_by_learning_rate/learning_rate"),
]
W = {"w": jnp.ones(2)}


@pytest.mark.parametrize(
    ("tx", "more"),
    [
        (gradtx.adam(0.1), []),
        (gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 9)), []),
        (gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.chain(gradtx.adam(0.1))), []),
        (gradtx.masked(gradtx.adam(0.1), {"w": True}), []),
        (gradtx.lookahead(gradtx.adam(0.1), 5, 0.5), ["lookahead/steps_since_sync"]),
        (gradtx.chain(gradtx.adam(0.1), gradtx.ema(0.9)), ["ema/count", "ema/ema/w"]),
        (
            gradtx.chain(gradtx.adam(0.1), gradtx.apply_every(2)),
            [f"apply_every/{n}" for n in ("count", "grad_acc/w", "excess_weight")],
        ),
        (
            gradtx.chain(gradtx.clip(1.0), gradtx.zero_nans(), gradtx.adam(0.1)),
            ["zero_nans/found_nan/w"],
        ),
        (
            gradtx.apply_if_finite(gradtx.adam(0.1), 3),
            [
                "apply_if_finite/notfinite_count",
                *("apply_if_finite/last_finite", "apply_if_finite/total_notfinite"),
            ],
        ),
        (
            gradtx.MultiSteps(gradtx.adam(0.1), 2),
            [
                *("multi_steps/mini_step", "multi_steps/gradient_step"),
                *("multi_steps/acc_grads/w", "multi_steps/excess_weight"),
            ],
        ),
        (
            gradtx.inject_hyperparams(gradtx.adam)(lambda count: 0.1, b1=0.8),
            [
                "inject_stateful_hyperparams/count",
                *(f"inject_stateful_hyperparams/hyperparams/{n}" for n in ("b1", "b2", "eps")),
                *(
                    f"inject_stateful_hyperparams/hyperparams/{n}"
                    for n in ("eps_root", "learning_rate")
                ),
                "hyperparams_states/learning_rate/wrapped_schedule/count",
            ],
        ),
        (
            gradtx.chain(gradtx.adam(0.1), gradtx.contrib.reduce_on_plateau()),
            [
                f"reduce_on_plateau/{n}"
                for n in (
                    *("scale", "best_value", "plateau_count"),
                    *("cooldown_count", "count", "avg_value"),
                )
            ],
        ),
    ],
)
def test_what_stands_around_a_piece_is_not_in_its_names(tx, more):
    params = gradtx.LookaheadParams(W, W) if "lookahead/steps_since_sync" in more else W
    assert sorted(names(tx, params)) == sorted(ADAM + more)


def test_labels_and_names_of_parts_are():
    tx = gradtx.partition(
        {"slow": gradtx.sgd(0.1, momentum=0.9), "fast": gradtx.sgd(1.0)},
        {"a": "slow", "b": "fast", "c": "fast"},
    )
    of_rate = "scale_by_learning_rate/count", "scale_by_learning_rate/learning_rate"
    assert names(tx) == [
        *(f"fast/{name}" for name in of_rate),
        "slow/trace/trace/a",
        *(f"slow/{name}" for name in of_rate),
    ]
    tx = gradtx.named_chain(("velocity", gradtx.trace(0.9)), ("step", gradtx.scale(-0.1)))
    assert names(tx, W) == ["velocity/trace/trace/w"]
    tx = gradtx.contrib.sam(gradtx.sgd(0.1), gradtx.sgd(0.5))
    assert "adv_state/scale_by_learning_rate/count" in names(tx, W)


def test_a_second_piece_of_a_kind_has_a_number():
    tx = gradtx.chain(gradtx.trace(0.9), gradtx.clip(1.0), gradtx.trace(0.5))
    assert names(tx, W) == ["trace/trace/w", "trace#2/trace/w"]


@dataclasses.dataclass
class Model:
    kernel: Any
    bias: Any


jax.tree_util.register_dataclass(Model, ["kernel", "bias"], [])


@pytest.mark.parametrize(
    ("params", "paths"),
    [
        (jnp.ones(2), ["trace/trace"]),
        ([jnp.ones(2), (jnp.ones(1), None)], ["trace/trace/0", "trace/trace/1/0"]),
        ({"b": {3: jnp.ones(2)}}, ["trace/trace/b/3"]),
        (Pair(jnp.ones(1), jnp.ones(2)), ["trace/trace/left", "trace/trace/right"]),
        (Layer(jnp.ones(1), jnp.ones(2)), ["trace/trace/weight", "trace/trace/bias"]),
        ({"m": Model(jnp.ones(1), jnp.ones(2))}, ["trace/trace/m/kernel", "trace/trace/m/bias"]),
    ],
)
def test_paths_of_parameters_of_every_kind(params, paths):
    assert names(gradtx.trace(0.9), params) == paths


def test_states_of_optax_have_the_same_names():
    pairs = [
        (library.trace(0.9), library.scale_by_adam(), library.scale_by_rms(), library.ema(0.5))
        for library in (gradtx, optax)
    ]
    ours, theirs = [gradtx.chain(*pieces).init(W) for pieces in pairs]
    assert [n for n, _ in named_leaves(theirs)][:4] == [n for n, _ in named_leaves(ours)][:4]
    wrapped = [
        library.MultiSteps(library.masked(library.scale_by_adam(), {"w": True}), 2).init(W)
        for library in (gradtx, optax)
    ]
    ours, theirs = [[name for name, _ in named_leaves(state)] for state in wrapped]
    assert ours == [*theirs, "multi_steps/excess_weight"]


class Velocity(NamedTuple):
    v: Any


def test_what_is_no_state_of_a_piece_is_called_by_its_keys():
    assert [n for n, _ in named_leaves(jnp.ones(1))] == ["array"]
    own = gradtx.GradientTransformation(Velocity, lambda u, s, p=None: (u, s))
    assert names(gradtx.chain(own, gradtx.trace(0.9)), W) == ["0/v/w", "trace/trace/w"]
    assert [n for n, _ in named_leaves({"version": 1, "a": [2]})] == ["a/0", "version#2"]


KEYS = st.sampled_from(["a", "a/b", "b", "b#2", "a/b#2", "version", ""])
TREES = st.recursive(
    st.just(0.0),
    lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@given(TREES)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_two_leaves_of_any_tree_share_a_name(tree):
    for state in (tree, (gradtx.TraceState(tree), gradtx.TraceState([tree]))):
        found = [name for name, _ in named_leaves(state)]
        assert len(set(found)) == len(found) == len(jax.tree.leaves(state))
        assert "version" not in found
