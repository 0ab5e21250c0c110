"""Choosing parameters by their paths, on any kind of tree, wherever a mask or label may stand."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from flax import nnx
from trees import Layer, Pair, assert_equal

import gradtx
from gradtx import by_path

PARAMS = {
    "embed": {"kernel": jnp.ones((4, 3))},
    "blocks": [
        {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)},
        {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)},
    ],
    "head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "scale": None},
}


def chosen(rules, default=0, tree=PARAMS, **more):
    """The leaves for which a rule holds, by name."""
    values = by_path(rules, default, **more)(tree)
    assert jax.tree.structure(values) == jax.tree.structure(tree)
    flat = jax.tree.leaves_with_path(values)
    return {gradtx.state.naming.path_name(path): v for path, v in flat if v != default}


# ---- Patterns ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("bias", "blocks/0/bias blocks/1/bias head/bias"),
        ("*/bias", "blocks/0/bias blocks/1/bias head/bias"),
        ("blocks", "blocks/0/bias blocks/0/kernel blocks/1/bias blocks/1/kernel"),
        ("blocks/0", "blocks/0/bias blocks/0/kernel"),
        ("/blocks/1/", "blocks/1/bias blocks/1/kernel"),
        ("blocks/[12]/kernel", "blocks/1/kernel"),
        ("blocks/*/k*", "blocks/0/kernel blocks/1/kernel"),
        ("blocks*bias", "blocks/0/bias blocks/1/bias"),
        ("?ead", "head/bias head/kernel"),
        ("0", "blocks/0/bias blocks/0/kernel"),
        (re.compile("^head"), "head/bias head/kernel"),
        (re.compile(r"blocks/\d+/bias$"), "blocks/0/bias blocks/1/bias"),
        (re.compile("(?i)HEAD/BIAS"), "head/bias"),
    ],
    ids=str,
)
def test_patterns(pattern, names):
    assert list(chosen({pattern: 1})) == names.split()


def test_a_tree_without_leaves_matches_nothing():
    assert gradtx.by_path({"head": 1})({"blocks": []}) == {"blocks": []}


@pytest.mark.parametrize("pattern", ["bia", "ias", "block", "head/", "kernel/x", "BIAS"])
def test_patterns_match_whole_names_only(pattern):
    if pattern == "head/":
        assert list(chosen({pattern: 1})) == ["head/bias", "head/kernel"]
        return
    with pytest.raises(ValueError, match=rf"by_path: '{pattern}' matches none of 'blocks/0/bias'"):
        chosen({pattern: 1})
    assert chosen({pattern: 1}, unused=True) == {}


def test_the_first_pattern_counts():
    found = chosen({"head": 1, "bias": 2, re.compile("kernel"): 3})
    assert found["head/bias"] == 1 and found["blocks/0/bias"] == 2 and found["embed/kernel"] == 3
    # A pattern whose leaves have all been taken did match: the error is for what fits nothing.
    assert set(chosen({"*": 1, "head": 2}).values()) == {1}


def test_leaves_without_a_rule():
    with pytest.raises(ValueError) as e:
        by_path({"bias": 1, "head": 2})(PARAMS)
    assert str(e.value) == (
        "by_path: needs a rule or a default for 'blocks/0/kernel', 'blocks/1/kernel', "
        "'embed/kernel', none of ['bias', 'head'] matches"
    )
    many = {f"p{i}": jnp.ones(()) for i in range(9)} | {"q": jnp.ones(())}
    with pytest.raises(ValueError, match=r"'p0', 'p1', 'p2', 'p3', 'p4' and 4 more, none of"):
        by_path({"q": 1})(many)
    assert by_path({"q": 1}, None)(many)["p0"] is None  # None is a value, as any


def test_a_function_of_path_and_leaf():
    select = by_path(lambda path, x: x.ndim > 1 and not path.startswith("embed"))
    found = jax.tree.map(lambda keep, x: x.ndim if keep else 0, select(PARAMS), PARAMS)
    assert found["embed"]["kernel"] == 0 and found["blocks"][1] == {"kernel": 2, "bias": 0}


# ---- Trees ------------------------------------------------------------------------------------


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.body = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


def module():
    keys = jax.random.split(jax.random.key(0))
    net = {"body": eqx.nn.Linear(3, 4, key=keys[0]), "head": eqx.nn.Linear(4, 2, key=keys[1])}
    return eqx.filter(net, eqx.is_array)


TREES = {
    "dicts": ({"body": {"w": jnp.ones(2), "b": jnp.ones(1)}, "head": {"b": jnp.ones(1)}}, "b", 2),
    "tuples": ((jnp.ones(1), [jnp.ones(2), jnp.ones(3)]), "1", 2),
    "named tuples": (Pair(jnp.ones(1), (jnp.ones(2),)), "right", 1),
    "dataclasses": ([Layer(jnp.ones((2, 2)), jnp.ones(2)), Layer(jnp.ones(1), None)], "weight", 2),
    "equinox": (module(), "bias", 2),
    "nnx": (nnx.state(Net(), nnx.Param), "bias", 2),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_of_any_kind(name):
    """As labels, as masks, and as multipliers; under `jit`."""
    params, pattern, number = TREES[name]
    labels = by_path({pattern: "fast"}, "slow")
    assert jax.tree.leaves(labels(params)).count("fast") == number
    g = jax.tree.map(jnp.ones_like, params)

    def sizes(updates):
        return [float(jnp.max(-u)) for u in jax.tree.leaves(updates)]

    wanted = [2.0 if label == "fast" else 0.5 for label in jax.tree.leaves(labels(params))]
    tx = gradtx.partition({"fast": gradtx.sgd(2.0), "slow": gradtx.sgd(0.5)}, labels)
    assert sizes(jax.jit(tx.update)(g, jax.jit(tx.init)(params), params)[0]) == wanted
    tx = gradtx.chain(gradtx.sgd(0.5), gradtx.multiply_by_path({pattern: 4.0}))
    assert sizes(jax.jit(tx.update)(g, tx.init(params), params)[0]) == wanted
    tx = gradtx.chain(
        gradtx.sgd(2.0), gradtx.masked(gradtx.scale(0.25), by_path({pattern: False}, True))
    )
    assert sizes(jax.jit(tx.update)(g, tx.init(params), params)[0]) == wanted


# ---- Where they stand -------------------------------------------------------------------------


def test_weight_decay_leaves_biases_out():
    tx = gradtx.adamw(0.1, weight_decay=0.5, mask=by_path({"bias": False}, True))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(PARAMS), PARAMS)
    for path, u in jax.tree.leaves_with_path(updates):
        name = gradtx.state.naming.path_name(path)
        np.testing.assert_allclose(u, 0.0 if "bias" in name else -0.05, err_msg=name)


def test_freezing_by_path():
    g = trees.like(PARAMS)
    tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=by_path({"head": False}, True))
    updates, state = tx.update(g, tx.init(PARAMS), PARAMS)
    assert sum(x.size for x in jax.tree.leaves(gradtx.tree.get(state, "mu"))) == 8
    assert not jnp.any(updates["embed"]["kernel"]) and jnp.all(updates["head"]["bias"])
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.freeze(by_path({"embed": True}, False)))
    updates, _ = tx.update(g, tx.init(PARAMS), PARAMS)
    assert not jnp.any(updates["embed"]["kernel"]) and jnp.all(updates["head"]["bias"])


def test_labels_for_the_partition_of_optax():
    rules = by_path({re.compile("bias$"): "fast"}, "slow")
    parts = {"fast": optax.sgd(2.0), "slow": optax.sgd(0.5)}
    theirs = optax.partition(parts, rules)
    ours = gradtx.partition(parts, rules)
    g = trees.like(PARAMS)
    wanted = theirs.update(g, theirs.init(PARAMS), PARAMS)[0]
    assert_equal(ours.update(g, ours.init(PARAMS), PARAMS)[0], wanted)


def test_rules_inside_of_a_partition_see_all_leaves_or_their_own():
    """Leafwise rules stand in one sweep over all leaves; what couples leaves sees its own alone."""
    labels = by_path({"head": "tune"}, "hold")
    decay = gradtx.adamw(0.1, mask=by_path({"bias": False}, True))
    tx = gradtx.partition({"tune": decay, "hold": gradtx.set_to_zero()}, labels)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    clip = gradtx.masked(gradtx.clip_by_global_norm(1.0), by_path({"embed": False}, True))
    tx = gradtx.partition({"tune": clip, "hold": gradtx.set_to_zero()}, labels)
    with pytest.raises(ValueError, match="by_path: 'embed' matches none of 'head/bias'"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_a_rule_that_never_matches_is_an_error_wherever_it_stands():
    never = by_path({"haed": False}, True)
    for tx in (
        gradtx.adamw(0.1, mask=never),
        gradtx.masked(gradtx.sgd(0.1), never),
        gradtx.partition({True: gradtx.sgd(0.1), False: gradtx.sgd(0.2)}, never),
    ):
        with pytest.raises(ValueError, match="by_path: 'haed' matches none of 'blocks/0/bias'"):
            tx.init(PARAMS)
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.multiply_by_path({"haed": 2.0}))
    with pytest.raises(ValueError, match="by_path: 'haed' matches none of 'blocks/0/bias'"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_a_label_that_has_no_transformation():
    tx = gradtx.partition({"a": gradtx.sgd(0.1)}, by_path({"head": "b"}, "a"))
    with pytest.raises(ValueError, match=r"params\['head'\]\['bias'\] has the label 'b'"):
        tx.init(PARAMS)


# ---- Learning rates by group ------------------------------------------------------------------


def test_multipliers_keep_the_dtype_and_round_once():
    g = {"a": trees.numbers((9,), 1, "bfloat16"), "b": trees.numbers((9,), 2, "complex64")}
    tx = gradtx.multiply_by_path({"a": 0.3}, 2.0)
    updates, _ = tx.update(g, tx.init(g))
    wanted = (np.asarray(g["a"], np.float32) * np.float32(0.3)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(updates["a"], wanted)
    np.testing.assert_array_equal(updates["b"], 2 * g["b"])


def test_multipliers_may_be_traced():
    @jax.jit
    def head(m):
        tx = gradtx.chain(gradtx.sgd(1.0), gradtx.multiply_by_path({"head": m}))
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]["head"]["bias"]

    np.testing.assert_array_equal(head(0.25), [-0.25, -0.25])


def test_layerwise_decay_is_one_line():
    """As ELECTRA has it: the last layer and the head keep the rate, each layer before less."""
    params = {f"layer_{i}": {"w": jnp.ones(1)} for i in range(11)} | {"head": jnp.ones(1)}
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.layerwise_decay(0.9, r"layer_(\d+)"))
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    for i in range(11):
        np.testing.assert_allclose(-updates[f"layer_{i}"]["w"], 0.9 ** (10 - i), rtol=1e-6)
    assert float(updates["head"][0]) == -1.0
    with pytest.raises(
        ValueError, match=r"layerwise_decay: layer must match a path, 'block_.*' matches"
    ):
        bad = gradtx.layerwise_decay(0.9, r"block_(\d+)")
        bad.update(params, bad.init(params))
    with pytest.raises(
        ValueError, match=r"layerwise_decay: layer must have a group .*, got 'layer'"
    ):
        gradtx.layerwise_decay(0.9, "layer")
    assert gradtx.layerwise_decay(0.9, "x(.)").update({}, gradtx.EmptyState())[0] == {}


def test_frozen_integers_pass_multipliers():
    params = {"n": jnp.arange(3), "w": jnp.ones(2)}
    hold = gradtx.selective_transform(gradtx.sgd(1.0), freeze_mask=by_path({"n": True}, False))
    tx = gradtx.chain(hold, gradtx.multiply_by_path({"w": 0.5}))
    updates, _ = tx.update(params, tx.init(params), params)
    assert_equal(updates, {"n": jnp.zeros(3, jnp.int32), "w": jnp.full(2, -0.5)})


def test_decay_by_path():
    """The first pattern that matches, numbers and schedules, before the learning rate."""
    params = {"embed": jnp.ones(2), "head": {"w": jnp.ones(2), "bias": jnp.ones(2)}}
    rules = {re.compile("bias$"): 0.0, "head": lambda step: 0.5 * (step + 1), "none": 9.0}
    tx = gradtx.add_decay_by_path(rules, 0.25, unused=True)
    state = tx.init(params)
    for step in range(2):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        np.testing.assert_allclose(updates["embed"], 0.25)
        np.testing.assert_allclose(updates["head"]["w"], 0.5 * (step + 1))
        np.testing.assert_allclose(updates["head"]["bias"], 0)
    decays = {x: row.weight_decay for row in gradtx.summary(tx, params).rows for x in row.paths}
    assert decays == {"embed": 0.25, "head/w": "schedule", "head/bias": None}
    with pytest.raises(ValueError, match="'none' matches none of"):
        gradtx.add_decay_by_path(rules, 0.25).init(params)


@pytest.mark.parametrize("piece", [gradtx.multiply_by_path, gradtx.add_decay_by_path])
def test_the_first_pattern_counts_outside_of_jit_too(piece):
    """Compiled code keeps the order of the rules, and may have several regular expressions."""
    params = {"head": {"w": jnp.ones(1), "b": jnp.ones(1)}, "x": jnp.ones(1)}
    rules = {"head/w": 2.0, "head": 3.0, re.compile("^x$"): 4.0, re.compile("no"): 5.0}
    tx = piece(rules, 1.0, unused=True)
    assert tx == piece(dict(rules), 1.0, unused=True)
    assert tx != piece(dict(reversed(rules.items())), 1.0, unused=True)
    offset = 1 if piece is gradtx.add_decay_by_path else 0
    for update in (tx.update, jax.jit(tx.update)):
        updates, _ = update(params, tx.init(params), params)
        found = jax.tree.map(lambda u: float(u[0]) - offset, updates)
        assert found == {"head": {"w": 2.0, "b": 3.0}, "x": 4.0}
