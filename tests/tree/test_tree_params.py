"""Mapping over the parts of states that mirror the parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from representatives import ENTRIES, each_entry, moved_one_by_one

import gradtx
from gradtx import tree

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "none": None}
SPECS = {"w": "W", "b": "B", "none": None}
MASK = {"w": True, "b": False, "none": False}
LABELS = {"w": "a", "b": "b", "none": "a"}


def spec(tx, *rest, params=PARAMS):
    def name(x, *r):
        return r[0] if r else "p"

    state = jax.eval_shape(tx.init, params)
    return tree.map_params(tx, name, state, *rest, transform_non_params=lambda x: "-")


@each_entry
def test_every_optimizer(entry):
    """Mirroring parts are mapped, the rest is left alone; the state keeps its structure."""
    tx = entry.make()
    state = jax.eval_shape(tx.init, PARAMS)
    kept = tree.map_params(tx, lambda x: x, state)
    assert jax.tree.structure(kept) == jax.tree.structure(state)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (kept, state)), strict=True))
    named = spec(tx, SPECS)
    assert jax.tree.structure(named) == jax.tree.structure(state)
    for path, leaf in jax.tree.leaves_with_path(named):
        wanted = {"w": "W", "b": "B"}
        keys = [k.key for k in path if isinstance(k, jax.tree_util.DictKey) and k.key in wanted]
        assert leaf == (wanted[keys[-1]] if keys else "-"), jax.tree_util.keystr(path)


SHAPES = {
    **{"w": jnp.ones((2, 3)), "b": jnp.ones(3, jnp.bfloat16), "s": jnp.ones(()), "none": None},
    "deep": {"k": jnp.ones((2, 2, 3)), "none": None, "pair": [jnp.ones((4, 4)), jnp.ones((1, 3))]},
}
BY_RANK = jax.tree.map(lambda p: "b" if p.ndim < 2 else "a", SHAPES)
AROUND = {
    "alone": lambda tx: tx,
    "masked": lambda tx: gradtx.masked(tx, jax.tree.map(lambda p: p.ndim > 1, SHAPES)),
    "masked by a function": lambda tx: gradtx.masked(
        tx, lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree)
    ),
    "partitioned": lambda tx: gradtx.partition({"a": tx, "b": gradtx.adam(0.1)}, BY_RANK),
}
LIKE = {
    "parameters": lambda p: p,
    "specs": lambda p: jax.P(*[None] * p.ndim),
    "tuples": lambda p: ("axis",) * p.ndim,
    "lists": lambda p: ["axis"] * p.ndim,
}


@pytest.mark.parametrize(
    ("entry", "around"),
    list(moved_one_by_one(ENTRIES, [*AROUND])),
    ids=lambda x: getattr(x, "name", x),
)
def test_every_optimizer_with_trees_of_every_kind(entry, around):
    """Each array gets what belongs to the parameter in whose name it is."""
    tx = AROUND[around](entry.make())
    state = jax.eval_shape(tx.init, SHAPES)
    owners = gradtx.state.roles(state, SHAPES)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(SHAPES)
    ]
    for like in LIKE.values():
        rest = jax.tree.map(like, SHAPES)
        wanted = dict(zip(paths, jax.tree.structure(SHAPES).flatten_up_to(rest), strict=True))
        mapped = tree.map_params(tx, lambda *x: Both(x), state, rest)
        found = jax.tree.leaves(mapped, is_leaf=lambda x: isinstance(x, Both))
        for x, role, leaf in zip(found, *map(jax.tree.leaves, (owners, state)), strict=True):
            if role.parameter is None:
                assert x is leaf
            else:
                assert x.slots[0] is leaf and x.slots[1] is wanted[role.parameter]


ADAM = "ScaleByAdamState(count='-', mu={0}, nu={0})"
FULL = ({"b": "p", "none": None, "w": "p"}, {"b": "B", "none": None, "w": "W"})


@pytest.mark.parametrize("library", [gradtx, optax], ids=["ours", "optax"])
@pytest.mark.parametrize("rest", [(), (SPECS,)], ids=["alone", "with specs"])
def test_wrappers(library, rest):
    full = FULL[len(rest)]
    only_w = full | {"b": library.MaskedNode()}
    adam = library.adam(0.1)

    def mask(params):
        return jax.tree.map(lambda x: x.ndim > 1, params)

    def found(tx):
        return tree.get(spec(tx, *rest), "mu")

    assert found(adam) == full
    assert found(library.chain(library.add_decayed_weights(0.1, MASK), adam)) == full
    assert found(library.masked(adam, MASK | {"none": True})) == only_w
    assert found(library.masked(adam, mask)) == only_w
    assert found(library.inject_hyperparams(library.adamw)(learning_rate=0.1)) == full
    assert found(library.apply_if_finite(adam, 3)) == full
    parts = {"a": adam, "b": library.sgd(0.1, momentum=0.9)}
    assert found(library.partition(parts, LABELS)) == only_w
    state = spec(library.partition(parts, LABELS), *rest)
    assert tree.get(state, "trace")["b"] == full["b"]
    assert tree.get(state, "trace")["w"] == library.MaskedNode()


def test_masked_without_slots():
    """No part mirrors the parameters, and the mask is fixed."""
    tx = gradtx.masked(gradtx.sgd(0.1), MASK)
    assert set(jax.tree.leaves(spec(tx))) == {"-"}
    theirs = optax.masked(optax.sgd(0.1), MASK)
    assert spec(theirs) == theirs.init(PARAMS)


def test_masked_hand_written():
    def init(params):
        return {"count": jnp.int32(1), "copy": params, "again": [params]}

    tx = gradtx.masked(gradtx.GradientTransformation(init, lambda u, s, p=None: (u, s)), MASK)
    for rest in ((), (SPECS,)):
        state = spec(tx, *rest).inner_state
        assert state["count"] == "-"
        assert state["copy"] == state["again"][0]
        assert state["copy"]["w"] == ("W" if rest else "p")
        assert state["copy"]["b"] == gradtx.MaskedNode()


def test_is_leaf_hands_masked_places_to_the_function():
    tx = gradtx.masked(gradtx.trace(0.9), MASK)

    def name(x, r):
        return "masked " + r if isinstance(x, gradtx.MaskedNode) else r

    state = tree.map_params(
        tx, name, tx.init(PARAMS), SPECS, is_leaf=lambda x: isinstance(x, gradtx.MaskedNode)
    )
    assert state.inner_state.trace == {"b": "masked B", "none": None, "w": "W"}


def test_non_params_stay_by_default():
    tx = gradtx.adam(0.1)
    state = tx.init(PARAMS)
    mapped = tree.map_params(tx, lambda x: x + 1, state)
    assert mapped[0].count is state[0].count
    np.testing.assert_array_equal(mapped[0].mu["w"], jnp.ones((2, 3)))


def test_results_may_be_none():
    tx = gradtx.adagrad(0.1)
    mapped = tree.map_params(
        tx, lambda _: None, tx.init({"a": jnp.zeros(2)}), transform_non_params=lambda _: None
    )
    assert mapped[0].sum_of_squares == {"a": None}
    assert mapped[1].count is None


def test_params_of_any_form():
    for params, wanted in (
        (jnp.ones(3), "p"),
        ([jnp.ones(3), {}], ["p", {}]),
        (trees.Layer(jnp.ones(2), None), trees.Layer("p", None)),
        ({}, {}),
    ):
        assert tree.get(spec(gradtx.adam(0.1), params=params), "mu") == wanted


def test_rest_may_hold_tuples_and_several_trees():
    axes = {"w": ("model", None), "b": ("data",), "none": None}
    tx = gradtx.adam(0.1)
    mapped = tree.map_params(tx, lambda x, a, s: (x.ndim, a, s), tx.init(PARAMS), axes, SPECS)
    assert mapped[0].mu["w"] == (2, ("model", None), "W")
    assert mapped[0].nu["b"] == (1, ("data",), "B")


class Both(NamedTuple):
    slots: Any


def test_several_arrays_for_one_parameter():
    """Each of them gets what `rest` has for the parameter."""

    def init(params):
        return Both(jax.tree.map(lambda p: [jnp.zeros(n) for n in p.shape], params))

    tx = gradtx.GradientTransformation(init, lambda u, s, p=None: (u, s))
    assert spec(tx, SPECS) == Both({"b": ["B"], "none": None, "w": ["W", "W"]})


def test_where_the_parameters_are_seen_in_another_form():
    """One vector of all parameters mirrors none; the fast parameters are a part of all."""
    tx = gradtx.flatten(gradtx.scale_by_adam())
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    state = tree.map_params(tx, lambda x, r: r, tx.init(params), params)
    assert state.mu.shape == (9,)
    tx = gradtx.lookahead(gradtx.adam(0.1), 5, 0.5)
    state = tx.init(gradtx.LookaheadParams(params, params))
    specs = {"w": "W", "b": "B"}
    for rest in (specs, gradtx.LookaheadParams(specs, specs)):
        assert tree.get(tree.map_params(tx, lambda x, r: r, state, rest), "mu") == specs


def test_what_is_only_to_be_seen_may_mirror_the_parameters():
    tx = gradtx.snapshot("updates", lambda updates: updates)
    assert spec(tx, SPECS).measurement == {"updates": FULL[1]}
    tx = gradtx.snapshot("norm", gradtx.global_norm)
    assert spec(tx, SPECS).measurement == {"norm": "-"}


def test_states_that_init_cannot_make_of_stand_ins():
    """What they declare is enough."""

    def init(params):
        return gradtx.TraceState(jax.tree.map(lambda p: jnp.zeros(p.shape) * p.sum(), params))

    tx = gradtx.GradientTransformation(init, lambda u, s, p=None: (u, s))
    assert spec(gradtx.masked(tx, MASK), SPECS).inner_state.trace["w"] == "W"
    assert spec(optax.lbfgs(), SPECS)[0].diff_params_memory == FULL[1]
    masked = optax.masked(optax.adam(0.1), MASK)  # optax cannot mask None
    assert spec(masked, SPECS).inner_state[0].mu["w"] == "W"


def test_init_alone_will_do():
    tx = gradtx.adam(0.1)
    assert tree.map_params(tx.init, lambda x: 1, tx.init(PARAMS))[0].mu["w"] == 1
    jitted = tree.map_params(jax.jit(tx.init), lambda x: 1, tx.init(PARAMS))
    assert jitted[0].mu["w"] == 1


def test_shardings():
    mesh = jax.make_mesh((1,), ("x",))
    tx = gradtx.adamw(0.1)
    params = {"w": jnp.ones((2, 3))}
    here = jax.sharding.NamedSharding(mesh, jax.P("x", None))
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    shardings = tree.map_params(
        tx,
        lambda _, s: s,
        jax.eval_shape(tx.init, params),
        {"w": here},
        transform_non_params=lambda _: everywhere,
    )
    state = jax.jit(tx.init, out_shardings=shardings)(params)
    assert state[0].mu["w"].sharding == here
    assert state[0].count.sharding == everywhere


def test_what_does_not_fit():
    tx = gradtx.adam(0.1)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="the state is not one that init returns"):
        tree.map_params(gradtx.sgd(0.1), lambda x: x, state)
    with pytest.raises(ValueError, match=r"tree\.map_params: .*only state has state\['b'\]"):
        tree.map_params(tx, lambda x, r: r, state, {"w": "W"})
    with pytest.raises(ZeroDivisionError):  # what the function itself raises is its own matter
        tree.map_params(tx, lambda x: 1 // 0, state)
