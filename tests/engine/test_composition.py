"""Chains, masks and partitions of ours and of optax's give the numbers of their parts."""

import functools

import equinox as eqx
import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from representatives import each_engine, each_entry
from test_conformance import extras, walk
from trees import assert_equal, assert_ulps, avals

import gradtx

PARAMS = trees.small()
GRADIENTS = [trees.like(PARAMS, i) for i in range(3)]
PIECES = {
    "decay": lambda: gradtx.add_decayed_weights(0.1),
    "adam": lambda: gradtx.scale_by_adam(),
    "clip": lambda: gradtx.clip(0.8),
    "trace": lambda: gradtx.trace(0.5, nesterov=True),
    "norm": lambda: gradtx.clip_by_global_norm(1.0),
    "schedule": lambda: gradtx.scale_by_schedule(lambda count: 1.0 / (count + 1)),
    "rate": lambda: gradtx.scale_by_learning_rate(0.1),
}


def one_at_a_time(pieces, params, gradients):
    """Runs each piece by itself, with a state of its own; gives the last updates and the states."""
    states, updates = [tx.init(params) for tx in pieces], None
    for updates in gradients:
        for i, tx in enumerate(pieces):
            updates, states[i] = tx.update(updates, states[i], params)
        params = gradtx.apply_updates(params, updates)
    return updates, states


# ---- Sweeps -----------------------------------------------------------------------------------


def test_a_fused_sweep_equals_its_pieces():
    """XLA may leave out a rounding between two pieces that it sees together."""
    pieces = [make() for make in PIECES.values()]
    updates, state, _ = walk(gradtx.chain(*pieces), PARAMS, GRADIENTS)
    alone, states = one_at_a_time(pieces, PARAMS, GRADIENTS)
    assert_ulps(updates, alone, 4, of_largest=True)
    assert_ulps(list(state), states, 4, of_largest=True)


def test_half_precision_is_rounded_once_in_a_sweep():
    """What passes between the pieces of a chain is not rounded to half precision."""
    g = {"w": trees.numbers((64,), 1, jnp.bfloat16)}
    factors = (1.1, 0.7, 1.3)
    tx = gradtx.chain(*map(gradtx.scale, factors))
    updates, _ = tx.update(g, tx.init(g))
    exact = np.asarray(g["w"], np.float64) * np.prod(factors)
    np.testing.assert_array_equal(updates["w"], jnp.asarray(exact, jnp.bfloat16))


@pytest.mark.parametrize("seed", range(3))
def test_nesting_changes_nothing(seed):
    order = list(np.random.default_rng(seed).permutation(list(PIECES)))
    pieces = [PIECES[name]() for name in order]
    flat = walk(gradtx.chain(*pieces), PARAMS, GRADIENTS)
    nested = gradtx.chain(
        pieces[0],
        gradtx.chain(pieces[1], gradtx.chain(pieces[2], gradtx.identity()), gradtx.chain()),
        gradtx.named_chain(("x", pieces[3]), ("a", gradtx.chain(pieces[4]))),
        gradtx.masked(gradtx.masked(pieces[5], True), lambda tree: True),
        gradtx.partition({"one": pieces[6]}, "one"),
    )
    updates, state, params = walk(nested, PARAMS, GRADIENTS)
    assert_ulps((updates, params), (flat[0], flat[2]), 4, of_largest=True)
    assert isinstance(state, tuple) and len(state) == 5
    assert set(state[2]) == {"x", "a"}
    assert isinstance(state[3], gradtx.MaskedState)
    assert set(state[4].inner_states) == {"one"}
    assert avals(state) == avals(nested.init(PARAMS)) == avals(jax.eval_shape(nested.init, PARAMS))


def test_named_chains_keep_the_order_that_they_were_given():
    tx = gradtx.named_chain(("z", gradtx.clip(1.0)), ("a", gradtx.scale(-0.1)))
    updates, state = tx.update(jnp.array([5.0]), tx.init(jnp.zeros(1)))
    np.testing.assert_allclose(updates, [-0.1], rtol=1e-6)
    assert set(state) == {"a", "z"}


def test_masks_inside_of_masks():
    mask_1 = {"a": True, "b": True, "c": {"d": False}}
    mask_2 = {"a": True, "b": False, "c": {"d": True}}
    for inner in (
        gradtx.scale(3.0),
        gradtx.chain(gradtx.scale(3.0), gradtx.clip_by_global_norm(1e9)),
    ):
        tx = gradtx.masked(gradtx.masked(inner, lambda tree: mask_2_of(tree, mask_2)), mask_1)
        g = GRADIENTS[0]
        updates, _ = tx.update(g, tx.init(PARAMS), PARAMS)
        assert_equal(updates["a"], 3.0 * g["a"])
        assert_equal((updates["b"], updates["c"]), (g["b"], g["c"]))


def mask_2_of(tree, mask):
    """The mask, with nothing where the outer mask left nothing."""
    return jax.tree.map(
        lambda m, x: x if isinstance(x, gradtx.MaskedNode) else m,
        mask,
        tree,
        is_leaf=lambda x: isinstance(x, gradtx.MaskedNode),
    )


@each_engine
def test_partition_gives_each_label_its_own(entry):
    labels = {"a": "ours", "b": "frozen", "c": "sgd"}
    parts = {"ours": entry.make(), "sgd": gradtx.sgd(0.5), "frozen": gradtx.set_to_zero()}

    def of_a(entry, g, params):
        """A loss of one leaf, so that it is the same with the others."""
        more = extras(entry, g["a"], params["a"])
        if "grad" in more:
            more["grad"] = g
        for name in {"value_fn", "obj_fn"} & set(more):
            more[name] = lambda q, loss=more[name]: loss(q["a"])
        return more

    for given in (labels, lambda tree: labels, {**labels, "c": {"d": "sgd"}}):
        tx = gradtx.partition(parts, given)
        updates, state, params = walk(tx, PARAMS, GRADIENTS, entry, of_a)
        assert avals(state) == avals(tx.init(PARAMS))
        assert_equal(params["b"], PARAMS["b"])
        assert_equal(updates["c"]["d"], -0.5 * GRADIENTS[-1]["c"]["d"])
        alone = walk(entry.make(), PARAMS["a"], [g["a"] for g in GRADIENTS], entry)
        assert_ulps(updates["a"], alone[0], 4, of_largest=True)
    assert gradtx.multi_transform is gradtx.partition


def test_a_partition_of_what_couples_leaves_couples_only_its_own():
    g = {"a": jnp.array([3.0]), "b": jnp.array([4.0]), "c": jnp.array([100.0])}
    tx = gradtx.partition(
        {"x": gradtx.clip_by_global_norm(1.0), "y": gradtx.identity()},
        {"a": "x", "b": "x", "c": "y"},
    )
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose([updates[k][0] for k in "abc"], [0.6, 0.8, 100.0], rtol=1e-6)


def test_extra_arguments_pass_by_and_reach_who_knows_them():
    seen = {}

    def update(updates, state, params=None, *, mine, **extra):
        seen.update(mine=mine, others=sorted(extra))
        return updates, state

    def update_without_rest(updates, state, params=None, *, mine=None):
        seen.update(second=mine)
        return updates, state

    def update_by_position(updates, state, params=None, mine=None):
        seen.update(third=mine)
        return updates, state

    def pair(update):
        return gradtx.GradientTransformation(lambda params: (), update)

    tx = gradtx.chain(
        pair(update), gradtx.sgd(0.1), pair(update_without_rest), pair(update_by_position)
    )
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, mine=3, other=4)
    assert seen == {"mine": 3, "others": ["other"], "second": 3, "third": 3}


# ---- optax ------------------------------------------------------------------------------------


@pytest.mark.slow
@each_entry
def test_ours_inside_of_optax(entry):
    ours, _, params = walk(entry.make(), PARAMS, GRADIENTS, entry)
    mask = jax.tree.map(lambda _: True, PARAMS)
    tx = entry.make()
    if entry.needs:
        tx = optax.GradientTransformationExtraArgs(
            *tx
        )  # optax gives extra arguments to these alone
    for theirs in (
        optax.chain(optax.identity(), tx),
        optax.named_chain(("it", tx)),
        optax.masked(tx, mask),
        optax.partition({"all": tx}, jax.tree.map(lambda _: "all", PARAMS)),
        optax.apply_if_finite(tx, 3),
        optax.with_extra_args_support(tx),
    ):
        updates, state, moved = walk(theirs, PARAMS, GRADIENTS, entry)
        assert_ulps((updates, moved), (ours, params), 4, of_largest=True)
        assert jax.tree.structure(state) == jax.tree.structure(theirs.init(PARAMS))


def test_optax_inside_of_ours():
    theirs = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1), optax.scale(-0.1))
    wanted, _, _ = walk(theirs, PARAMS, GRADIENTS)
    pieces = optax.scale_by_adam(), optax.add_decayed_weights(0.1), optax.scale(-0.1)
    mixed = pieces[0], gradtx.add_decayed_weights(0.1), pieces[2]
    for ours in (
        gradtx.chain(*pieces),
        gradtx.chain(*mixed),
        gradtx.chain(gradtx.identity(), theirs),
        gradtx.named_chain(("it", theirs)),
        gradtx.masked(theirs, jax.tree.map(lambda _: True, PARAMS)),
        gradtx.masked(gradtx.chain(*mixed), lambda tree: jax.tree.map(lambda _: True, tree)),
        gradtx.partition({"all": theirs}, "all"),
        gradtx.partition({"all": gradtx.chain(*mixed)}, lambda tree: "all"),
    ):
        updates, state, _ = walk(ours, PARAMS, GRADIENTS)
        assert_ulps(updates, wanted, 8, of_largest=True)
        assert avals(state) == avals(ours.init(PARAMS))
        jax.jit(ours.update)(PARAMS, state, PARAMS)


def test_optax_applies_our_updates_and_we_theirs():
    tx, theirs = gradtx.adamw(0.1), optax.adamw(0.1)
    g = GRADIENTS[0]
    ours, _ = tx.update(g, tx.init(PARAMS), PARAMS)
    other, _ = theirs.update(g, theirs.init(PARAMS), PARAMS)
    assert_ulps(optax.apply_updates(PARAMS, ours), gradtx.apply_updates(PARAMS, ours))
    assert_ulps(gradtx.apply_updates(PARAMS, other), optax.apply_updates(PARAMS, other))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    assert_equal(gradtx.apply_updates(half, ours), optax.apply_updates(half, ours))


def test_extra_arguments_reach_ours_through_optax():
    """optax hands extra arguments on to its own type only, and drops them for any other pair."""
    ours = gradtx.chain(gradtx.sgd(0.1), gradtx.reduce_on_plateau(factor=0.5, patience=1))
    tx = optax.chain(optax.identity(), optax.GradientTransformationExtraArgs(*ours))
    state = tx.init(PARAMS)
    for _ in range(2):  # the second value is no better than the first
        updates, state = tx.update(PARAMS, state, PARAMS, learning_rate=0.5, value=1.0)
    assert_ulps(updates, jax.tree.map(lambda g: -0.25 * g, PARAMS))


def test_extra_arguments_reach_optax_through_ours():
    tx = gradtx.chain(gradtx.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))
    state = tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(PARAMS, state, PARAMS, value=1.0, other=2)
    assert abs(float(updates["a"][0, 0])) < 0.05 * abs(float(PARAMS["a"][0, 0]))


def test_what_optax_builds_around_optimizers():
    """Its wrappers run on ours as they do on its own, to the same numbers."""

    def injected(library):
        return optax.inject_hyperparams(library.adamw)(learning_rate=0.1, b1=0.8)

    def several_steps(library):
        return optax.MultiSteps(library.adamw(0.1), 2).gradient_transformation()

    def schedule_free(library):
        return optax.contrib.schedule_free(library.sgd(0.1), 0.1)

    def accelerated(library):
        return optax.contrib.mechanize(library.adam(0.1))

    for wrap in (injected, several_steps, schedule_free, accelerated):
        ours, theirs = wrap(gradtx), wrap(optax)
        run = jax.jit(functools.partial(walk, gradients=GRADIENTS), static_argnums=0)
        updates, _, params = run(ours, PARAMS)
        wanted, _, their_params = run(theirs, PARAMS)
        assert_ulps(params, their_params, 16, of_largest=True)
        del updates, wanted


def test_optax_finds_what_is_in_our_states():
    state = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(0.25)).init(PARAMS)
    assert_equal(optax.tree_utils.tree_get(state, "mu"), jax.tree.map(jnp.zeros_like, PARAMS))
    assert float(optax.tree_utils.tree_get(state, "learning_rate")) == 0.25
    doubled = optax.tree_utils.tree_map_params(gradtx.adamw(0.1), lambda x: x + 2, state[1])
    assert_equal(doubled[0].nu["b"], jnp.full(3, 2.0))
    assert int(doubled[0].count) == 0


def test_states_without_memory_are_alike():
    for tx in (gradtx.identity(), gradtx.scale(1.0), gradtx.clip(1.0), gradtx.set_to_zero()):
        state = tx.init(PARAMS)
        assert isinstance(state, gradtx.EmptyState) and jax.tree.leaves(state) == []
    tx = gradtx.chain(gradtx.scale(2.0), optax.identity())
    updates, state = tx.update(PARAMS, (optax.EmptyState(), optax.EmptyState()))
    assert_equal(updates, jax.tree.map(lambda g: 2 * g, PARAMS))
    assert jax.tree.leaves(state) == []


# ---- Other people's trees -----------------------------------------------------------------------


def test_an_equinox_module_filtered_to_its_arrays():
    model = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    tx = gradtx.adamw(0.1)

    @jax.jit
    def step(params, state):
        def loss(p):
            return eqx.combine(p, static)(jnp.array([1.0, 2.0])) ** 2

        value, g = jax.value_and_grad(loss)(params)
        updates, state = tx.update(g, state, params)
        return gradtx.apply_updates(params, updates), state, value

    state = tx.init(params)
    before = avals(state)
    values = []
    for _ in range(10):
        params, state, value = step(params, state)
        values.append(float(value))
    assert avals(state) == before
    assert values[-1] < 0.5 * values[0]
    assert eqx.apply_updates(model, params).layers[0].use_bias


def test_a_frozen_dict_of_flax():
    params = flax.core.freeze({"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}})
    updates, _, moved = walk(gradtx.adamw(0.1), params, [params])
    assert isinstance(updates, flax.core.FrozenDict)
    assert jax.tree.structure(moved) == jax.tree.structure(params)
