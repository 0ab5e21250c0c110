"""The engine: what rules see, how often they are traced, and the pieces that couple leaves."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from hypothesis import given, settings, strategies as st
from test_bad_inputs import refused
from test_conformance import walk
from trees import assert_equal, assert_ulps, avals

import gradtx
from gradtx import Slots, numerics
from gradtx._arguments import descriptions
from gradtx.engine import paths
from gradtx.engine.blocks import Block, repeated_block


class CountState(NamedTuple):
    count: jax.Array


class SlotState(NamedTuple):
    first: object
    second: object


class NoiseState(NamedTuple):
    count: jax.Array
    rng_key: jax.Array


class SharedState(NamedTuple):
    count: jax.Array
    size: jax.Array


# ---- Tracing ----------------------------------------------------------------------------------


def counting_rule(calls, **more):
    """A rule that notes the shape and dtype of each leaf that it is traced for."""

    def update(g, s, step, p):
        calls.append((g.shape, g.dtype.name))
        return 2.0 * g, Slots()

    return gradtx.leafwise(gradtx.EmptyState, None, update, **more)


def layers(n):
    """A network of n layers: two shapes in each, and one of its own at each end."""
    layer = {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3), "scale": jnp.ones(3)}
    return {"in": jnp.ones((2, 3)), "layers": [layer] * n, "out": jnp.ones((3, 2))}


@pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_rule_is_traced_once_for_each_signature(how):
    calls = []
    tx = counting_rule(calls)
    params = layers(5)
    update = how(tx.update)
    state = tx.init(params)
    calls.clear()  # `init` looks at integer leaves only
    updates, state = update(params, state)
    assert sorted(calls) == [
        ((2, 3), "float32"),
        ((3,), "float32"),
        ((3, 2), "float32"),
        ((3, 3), "float32"),
    ]
    assert_equal(updates, jax.tree.map(lambda x: 2 * x, params))
    update(params, state)
    assert len(calls) == 4


def test_dtypes_are_signatures_too():
    calls = []
    tx = counting_rule(calls)
    tree = [jnp.ones(2), jnp.ones(2), jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.bfloat16)]
    tx.update(tree, tx.init(tree))
    assert len(calls) == 2 and {dtype for _, dtype in calls} == {"float32"}  # both compute in it


def test_the_traced_program_does_not_grow_with_the_layers():
    """A layer more costs a call of the block, not the operations in it again."""

    def operations(n):
        params = layers(n)
        tx = gradtx.scale_by_adam()
        jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params))
        return str(jaxpr).count(" sqrt ")

    assert operations(20) == operations(4) > 0


def test_leaves_in_blocks_get_what_is_theirs():
    """Each leaf of a repeated block keeps its own slots, parameters and masks."""
    params = trees.like(layers(6))
    mask = jax.tree.map_with_path(lambda path, x: "bias" not in str(path), params)
    tx = gradtx.adamw(0.1, weight_decay=0.5, mask=mask)
    gradients = [trees.like(params, i) for i in (1, 2)]
    updates, _, _ = walk(tx, params, gradients)
    for (path, u), x, m, *g in zip(
        *map(jax.tree.leaves_with_path, [updates]),
        *map(jax.tree.leaves, (params, mask, *gradients)),
        strict=True,
    ):
        alone = gradtx.adamw(0.1, weight_decay=0.5 if m else 0.0)
        wanted, _, _ = walk(alone, x, g)
        np.testing.assert_allclose(u, wanted, rtol=1e-5, err_msg=str(path))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from("abc"), max_size=14)
    | st.tuples(st.lists(st.sampled_from("ab"), max_size=4), st.integers(1, 4)).map(
        lambda t: t[0] * t[1]
    )
)
def test_repeated_blocks_against_all_of_them(sequence):
    covered = {
        Block(start, length, times)
        for length in range(1, len(sequence) + 1)
        for start in range(len(sequence))
        for times in range(2, len(sequence) // length + 1)
        if sequence[start : start + length * times] == sequence[start : start + length] * times
        and start + length * times <= len(sequence)
    }
    found = repeated_block(sequence)
    if not covered:
        assert found == Block(0, len(sequence), 1)
        return
    assert found in covered
    most = max(b.length * b.times for b in covered)
    assert found.length * found.times == most
    assert found.length == min(b.length for b in covered if b.length * b.times == most)


# ---- What a rule sees ---------------------------------------------------------------------------


def test_rules_compute_in_float32_or_wider():
    seen = []

    def init(p):
        seen.append(("p", p.dtype.name))
        return Slots(first=jnp.zeros_like(p), second=jnp.zeros(p.shape, jnp.bfloat16))

    def update(g, s, step, p):
        seen.extend([("g", g.dtype.name), ("first", s.first.dtype.name)])
        seen.extend([("second", s.second.dtype.name), ("p", p.dtype.name)])
        assert step is None
        return g, Slots(first=s.first, second=s.second)

    tx = gradtx.leafwise(SlotState, init, update, params=True)
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        p = jnp.ones(2, dtype)
        state = tx.init(p)
        assert (state.first.dtype, state.second.dtype) == (jnp.float32, jnp.bfloat16)
        updates, new = tx.update(p, state, p)
        assert updates.dtype == dtype and avals(new) == avals(state)
    assert {dtype for _, dtype in seen} == {"float32"}


def test_what_all_leaves_share_is_computed_once_a_step():
    calls = []

    def shared(step, extra):
        calls.append((int(step), extra.get("volume")))
        return {"size": 10.0 * (step + 1), "factor": extra.get("volume", 1.0)}

    def per_step(step):
        return {"t": step + 1}

    def update(g, s, step, p):
        return s.size * s.factor * s.t * g, Slots()

    tx = gradtx.leafwise(SharedState, None, update, shared=shared, per_step=per_step)
    g = {"a": jnp.ones(1), "b": jnp.ones(2)}
    state = tx.init(g)
    assert float(state.size) == 10.0
    calls.clear()
    updates, state = tx.update(g, state)
    updates, state = tx.update(g, state, volume=3.0, other=None)
    assert calls == [(0, None), (1, 3.0)]
    assert_equal(updates, {"a": jnp.full(1, 120.0), "b": jnp.full(2, 120.0)})  # 20 * 3 * 2
    assert float(state.size) == 20.0 and int(state.count) == 2


def test_each_leaf_has_a_random_key_of_its_own_at_each_step():
    def update(g, s, step, p):
        return g + jax.random.normal(s.rng_key, g.shape), Slots()

    def noise(key):
        return gradtx.leafwise(NoiseState, None, update, key=key, name="noise")

    g = {"a": jnp.zeros(4), "b": jnp.zeros(4), "c": [jnp.zeros(4)] * 3}
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        tx = noise(key)
        first = tx.init(g)
        with jax.debug_key_reuse(True):
            tx.update(g, first)
        updates, state = tx.update(g, first)
        again, later = tx.update(g, state)
        assert avals(first) == avals(state) == avals(later)
        drawn = np.stack(jax.tree.leaves((updates, again)))
        assert len({tuple(row) for row in drawn}) == 10
        assert abs(np.corrcoef(drawn)[np.triu_indices(10, 1)]).max() < 1.0
        assert_equal(tx.update(g, first)[0], updates)
        assert_equal(jax.jit(noise(key).update)(g, noise(key).init(g))[0], updates)
        # A leaf that is left out does not change the others' noise.
        without = {**g, "a": None}
        assert_equal(tx.update(without, tx.init(without))[0]["b"], updates["b"])
    other, _ = noise(jax.random.key(1)).update(g, noise(jax.random.key(1)).init(g))
    assert not np.allclose(other["a"], updates["a"])

    def step(state, _):
        u, state = tx.update(g, state)
        return state, u["a"]

    _, scanned = jax.lax.scan(step, first, length=2)
    assert_equal(scanned, jnp.stack([updates["a"], again["a"]]))


def nothing_twice(p):
    zeros = jnp.zeros_like(p)
    return Slots(first=zeros, second=zeros)


def the_parameter_twice(p):
    return Slots(first=p, second=p)


def a_view_of_the_parameter(p):
    return Slots(first=p.reshape(p.shape), second=p.astype(p.dtype))


@pytest.mark.parametrize("init", [nothing_twice, the_parameter_twice, a_view_of_the_parameter])
def test_slots_that_share_a_buffer_can_be_donated(init):
    def update(g, s, step, p):
        return g, Slots(first=s.first, second=s.second)

    tx = gradtx.leafwise(SlotState, init, update)
    params = {"w": jnp.ones(3)}
    step = jax.jit(lambda p, s, g: (p, tx.update(g, s)[1]), donate_argnums=(0, 1))
    params, state = step(params, tx.init(params), {"w": jnp.ones(3)})
    step(params, state, {"w": jnp.ones(3)})
    # and after an eager step, which gives back what it was given
    params = {"w": jnp.ones(3)}
    _, state = tx.update(params, tx.init(params))
    step(params, state, {"w": jnp.ones(3)})


def test_slots_may_be_of_other_shapes_and_trees():
    """A factor for each row, and a pair of arrays."""

    def init(p):
        return Slots(first=jnp.zeros(p.shape[:1]), second=(jnp.zeros(()), jnp.ones(p.shape)))

    def update(g, s, step, p):
        rows = s.first + jnp.sum(g, axis=1)
        return g * rows[:, None], Slots(first=rows, second=(s.second[0] + 1, s.second[1]))

    tx = gradtx.leafwise(SlotState, init, update)
    g = {"a": jnp.ones((2, 3)), "b": [jnp.ones((1, 2))]}
    updates, state, _ = walk(tx, g, [g, g])
    assert avals(state) == avals(tx.init(g))
    assert_equal(updates["a"], jnp.full((2, 3), 6.0))
    assert float(state.second["b"][0][0]) == 2.0
    with refused(ValueError, "updates['b'][0]", "(2, 1)", "state.first", "(1,)"):
        tx.update({"a": jnp.ones((2, 3)), "b": [jnp.ones((2, 1))]}, state)


def test_rules_that_break_the_contract_are_named():
    g = {"w": jnp.ones((2, 3))}

    def shrink(g, s, step, p):
        return g[0], Slots()

    tx = gradtx.leafwise(gradtx.EmptyState, None, shrink, name="shrink")
    with refused(ValueError, "shrink", "updates['w']", "(3,)", "(2, 3)"):
        tx.update(g, tx.init(g))

    def forget(g, s, step, p):
        return g, Slots(first=g)

    def both(p):
        return Slots(first=p, second=p)

    tx = gradtx.leafwise(SlotState, both, forget, name="forget")
    with refused(Exception, "forget", "second"):
        tx.update(g, tx.init(g))
    tx = gradtx.leafwise(SlotState, lambda p: Slots(first=p), forget, name="forget")
    with refused(TypeError, "forget", "first", "second"):
        tx.init(g)


def test_any_callable_may_be_a_rule():
    """A partial function has no name, and may hold a tracer."""

    def update(decay, g, s, step, p):
        return decay * g, Slots()

    def factor(decay, g):
        rule = functools.partial(update, decay)
        return gradtx.leafwise(gradtx.EmptyState, None, rule, name="factor").update(
            g, gradtx.EmptyState()
        )[0]

    g = jnp.ones(2)
    with trees.checking_leaks():
        assert_equal(jax.jit(factor)(0.5, g), 0.5 * g)
    gradtx.leafwise(gradtx.EmptyState, None, functools.partial(update, 0.5))


def test_slots_say_which_there_are():
    with pytest.raises(AttributeError, match=r"'mu', only \['nu'\]"):
        _ = Slots(nu=1.0).mu


class HasSlot(NamedTuple):
    mu: jax.Array


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda g, s: g, "update must return an array and Slots of ['mu'], got an array"),
        (lambda g, s: (g, s.mu), "update must return an array and Slots of ['mu'], got an array"),
        (lambda g, s: (g, None), "update must return an array and Slots of ['mu'], got None"),
        (lambda g, s: (g, Slots(nu=g)), "update must return an array and Slots of ['mu'], got"),
        (lambda g, s: (g.sum(), s), "the rule returned shape (), not ("),
        (lambda g, s: (g.mT, s), "the rule returned shape ("),
        (lambda g, s: (g, Slots(mu=s.mu[0, 0])), "the rule returned state.mu of shape ("),
    ],
)
@pytest.mark.parametrize("lift", [gradtx.leafwise, gradtx.matrixwise])
def test_what_a_rule_returns_is_checked(lift, returned, told):
    def rule(g, s, step, p):
        return returned(g, s)

    x = {"w": jnp.ones((2, 3))}
    tx = lift(HasSlot, lambda p: Slots(mu=jnp.zeros_like(p)), rule, name="mine")
    for update in (tx.update, jax.jit(tx.update)):
        with refused((TypeError, ValueError), "mine: ", told):
            update(x, tx.init(x), x)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda g, s, step: (g if g.sum() > 0 else -g, s), "boolean conversion of traced array"),
        (lambda g, s, step: (g * step, s), "step is None unless the state has a count"),
        (lambda g, s, step: (g @ s.mu, s), "dot_general requires contracting dimensions"),
        (lambda g, s, step: (g * s.nu, s), "there is no slot 'nu'"),
    ],
)
@pytest.mark.parametrize("lift", [gradtx.leafwise, gradtx.matrixwise])
def test_errors_inside_of_a_rule_are_told(lift, returned, told):
    def rule(g, s, step, p):
        return returned(g, s, step) if g.shape[-1] == 3 else (g, s)

    x = {"b": jnp.ones((2, 2)), "w": jnp.ones((2, 3))}
    tx = lift(HasSlot, lambda p: Slots(mu=jnp.zeros_like(p)), rule, name="mine")
    state = tx.init(x)
    for update in (tx.update, jax.jit(tx.update)):
        with refused((TypeError, ValueError), "mine: updates['w']: the update is float32", told):
            update(x, state, x)


@pytest.mark.parametrize("lift", [gradtx.leafwise, gradtx.matrixwise])
def test_errors_inside_of_init_are_told(lift):
    def init(p):
        return Slots(mu=p @ p)

    x = {"a": jnp.ones((2, 2)), "w": jnp.ones((2, 3))}
    tx = lift(HasSlot, init, lambda g, s, step, p: (g, s), name="mine")
    told = (
        "mine: params['w']: the parameter is float32 of shape ",
        "2, 3)",
        "init cannot use",
        "dot_general",
    )
    for make in (tx.init, jax.jit(tx.init), gradtx.chain(gradtx.scale(1.0), tx).init):
        with refused((TypeError, ValueError), *told):
            make(x)


@pytest.mark.parametrize("lift", [gradtx.leafwise, gradtx.matrixwise])
def test_a_rule_whose_init_returns_no_slots(lift):
    tx = lift(HasSlot, jnp.zeros_like, lambda g, s, step, p: (g, s), name="mine")
    with refused(TypeError, "mine", "init must return Slots of ['mu'], got an array of shape"):
        tx.init({"w": jnp.ones((2, 3))})


# ---- Paths --------------------------------------------------------------------------------------


def test_paths_are_written_as_one_would_reach_the_leaf():
    tree = {"a": [1.0, None], "b": trees.Pair(trees.Layer(2.0, 3.0), (4.0,))}
    found = descriptions.paths(tree)
    assert found == [
        "['a'][0]",
        "['a'][1]",
        "['b'].left.weight",
        "['b'].left.bias",
        "['b'].right[0]",
    ]
    assert [paths.nth_path(tree, i) for i in range(5)] == found


def test_align_says_what_differs():
    a = {"x": 1.0, "y": [2.0, 3.0]}
    treedef = jax.tree.structure(a, is_leaf=paths.is_none)
    assert paths.align(treedef, {"x": (7.0, 8.0), "y": [None, 9.0]}, "b", a) == [
        (7.0, 8.0),
        None,
        9.0,
    ]
    for b, parts in (
        ({"x": 1.0, "y": [2.0]}, ["only updates has updates['y'][1]"]),
        ({"x": 1.0, "z": 1.0}, ["updates['y'][0], updates['y'][1]", "only b has b['z']"]),
        (1.0, ["updates['x'], updates['y'][0]", "only b has b"]),
        ({"x": 1.0, "y": (2.0, 3.0)}, ["updates", "[*, *]", "(*, *)"]),
    ):
        with refused(paths.StructureError, "updates and b", *parts):
            paths.align(treedef, b, "b", a)
    many = {f"k{i}": 1.0 for i in range(9)}
    with refused(ValueError, "b['k0'], b['k1'], b['k2'] and 6 more"):
        paths.align(treedef, many, "b", a)


# ---- Applying -----------------------------------------------------------------------------------


def test_apply_updates_keeps_the_parameters_dtypes():
    dtypes = ("float32", "bfloat16", "float16", "complex64", "int32")
    params = {d: jnp.ones(2, d) for d in dtypes}
    updates = {d: jnp.ones(2, "int32" if d == "int32" else "float32") for d in dtypes}
    for apply in (gradtx.apply_updates, jax.jit(gradtx.apply_updates)):
        new = apply(params, updates)
        assert avals(new) == avals(params)
        assert_equal(new, {d: jnp.full(2, 2, d) for d in dtypes})
        # Added in float32 and rounded once: 1 + 2^-8 + 2^-9 rounds up; half by half it would not.
        small = apply(jnp.ones((), jnp.bfloat16), jnp.float32(2.0**-8 + 2.0**-9))
        assert float(small) == 1.0 + 2.0**-7


def test_apply_updates_leaves_alone_what_has_no_update():
    params = {"a": jnp.ones(2), "b": None, "c": (jnp.ones(1), 3.0)}
    new = gradtx.apply_updates(params, {"a": None, "b": None, "c": (jnp.ones(1), 1.0)})
    assert_equal(new["a"], params["a"])
    assert new["b"] is None and float(new["c"][1]) == 4.0
    assert gradtx.apply_updates({}, {}) == {}
    assert gradtx.apply_updates({"b": None}, {"b": jnp.ones(2)}) == {"b": None}


def test_apply_updates_refuses_what_does_not_fit():
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(3)}}
    for updates, error, parts in (
        ({"a": jnp.ones(2)}, ValueError, ["only params has params['b']['c']"]),
        ({**params, "d": jnp.ones(1)}, ValueError, ["only updates has updates['d']"]),
        ({**params, "a": jnp.ones(1)}, ValueError, ["params['a']", "(2,)", "(1,)"]),
        ({**params, "b": {"c": (jnp.ones(3),)}}, ValueError, ["params['b']['c']"]),
        ({**params, "a": jnp.ones(2, complex)}, TypeError, ["params['a']", "complex64", "float32"]),
    ):
        with refused(error, "apply_updates" if "only" not in parts[0] else "updates", *parts):
            gradtx.apply_updates(params, updates)
    with refused(TypeError, "apply_updates", "params['n']", "int32", "float32"):
        gradtx.apply_updates({"n": jnp.ones(2, jnp.int32)}, {"n": jnp.ones(2)})


# ---- Clipping and norms -------------------------------------------------------------------------


def test_norms_of_half_precision_do_not_overflow():
    for dtype, size in ((jnp.float16, 6e4), (jnp.bfloat16, 1e18)):
        tree = {"a": jnp.full(100, size, dtype), "b": jnp.full(44, size, dtype)}
        exact = 12 * float(jnp.asarray(size, dtype))
        np.testing.assert_allclose(gradtx.global_norm(tree), exact, rtol=1e-6)
        tx = gradtx.clip_by_global_norm(1.0)
        updates, _ = tx.update(tree, tx.init(tree))
        assert updates["a"].dtype == dtype
        np.testing.assert_allclose(np.asarray(updates["a"], np.float32), 1 / 12, rtol=4e-3)


def test_norm_is_that_of_all_leaves_together():
    tree = {"a": jnp.array([3.0]), "z": jnp.array([4.0j]), "none": None, "empty": jnp.zeros(0)}
    assert float(gradtx.global_norm(tree)) == 5.0
    assert gradtx.global_norm(tree).dtype == jnp.float32
    assert float(gradtx.global_norm({})) == 0.0
    slope = jax.grad(gradtx.global_norm)({"a": jnp.zeros(2)})
    assert_equal(slope, {"a": jnp.zeros(2)})


def test_clip_by_global_norm():
    tree = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    for most, factor in ((1.0, 0.2), (5.0, 1.0), (10.0, 1.0), (jnp.float32(2.5), 0.5), (0.0, 0.0)):
        tx = gradtx.clip_by_global_norm(most)
        updates, _ = tx.update(tree, tx.init(tree))
        assert_ulps(updates, jax.tree.map(lambda x, f=factor: f * x, tree), 2)
    tx = gradtx.clip_by_global_norm(1.0)
    for dtype in ("float32", "float16", "bfloat16", "complex64"):
        zeros = {"a": jnp.zeros(2, dtype), "none": None}
        assert_equal(tx.update(zeros, tx.init(zeros))[0], zeros)
    # What is infinite or NaN is left to be seen.
    for bad in (jnp.inf, jnp.nan):
        g = {"a": jnp.array([bad, 1.0])}
        assert_equal(tx.update(g, tx.init(g))[0], g)
    slope = jax.grad(lambda g: jnp.sum(tx.update(g, tx.init(g))[0]))(jnp.zeros(3))
    np.testing.assert_array_equal(slope, jnp.ones(3))


def test_clip():
    tx = gradtx.clip(1.5)
    g = {"a": jnp.array([-3.0, 0.5, jnp.inf, 0.0]), "h": jnp.array([2.0, -0.5], jnp.bfloat16)}
    updates, _ = tx.update(g, tx.init(g))
    assert_equal(updates["a"], jnp.array([-1.5, 0.5, 1.5, 0.0]))
    assert_equal(updates["h"], jnp.array([1.5, -0.5], jnp.bfloat16))
    assert np.isnan(tx.update(jnp.array([jnp.nan]), tx.init(None))[0])


def test_stateless_functions():
    by_tree = gradtx.stateless(lambda u, p: jax.tree.map(lambda x, y: x * y, u, p))
    by_leaf = gradtx.stateless_with_tree_map(lambda g, p: g * p)
    without = gradtx.stateless_with_tree_map(lambda g, p: g if p is None else p)
    g, p = {"a": jnp.array([2.0])}, {"a": jnp.array([3.0])}
    for tx in (by_tree, by_leaf):
        updates, state = tx.update(g, tx.init(p), p, learning_rate=1.0)
        assert_equal(updates, {"a": jnp.array([6.0])})
        assert state == gradtx.EmptyState()
    assert_equal(without.update(g, without.init(p))[0], g)


# ---- Plateaus -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"factor": 0.5, "patience": 2},
        {"factor": 0.5, "patience": 1, "cooldown": 2},
        {"factor": 0.1, "patience": 2, "min_scale": 0.05},
        {"factor": 0.5, "patience": 2, "rtol": 0.1},
        {"factor": 0.5, "patience": 2, "atol": 0.2, "rtol": 0.0},
        {"factor": 0.5, "patience": 1, "accumulation_size": 3},
        {"factor": 0.3, "patience": 2, "cooldown": 1, "accumulation_size": 2, "atol": 0.01},
    ],
    ids=str,
)
def test_reduce_on_plateau_follows_optax_step_by_step(setting):
    random = np.random.default_rng(3)
    values = 2.0 * 0.9 ** np.minimum(np.arange(60), 20) + 0.1 * random.standard_normal(60)
    ours, theirs = gradtx.reduce_on_plateau(**setting), optax.contrib.reduce_on_plateau(**setting)
    g = {"a": jnp.ones(2)}
    mine, other = ours.init(g), theirs.init(g)
    assert sorted(mine._fields) == sorted(other._fields)
    update, reference = jax.jit(ours.update), jax.jit(theirs.update)
    scales = set()
    for value in values.astype(np.float32):
        updates, mine = update(g, mine, value=value)
        wanted, other = reference(g, other, value=value)
        for name in mine._fields:
            np.testing.assert_allclose(
                getattr(mine, name), getattr(other, name), rtol=1e-6, err_msg=name
            )
        assert_ulps(updates, wanted, 2)
        scales.add(float(mine.scale))
    assert len(scales) > 1  # there was something to compare
    assert avals(mine) == avals(ours.init(g))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_reduce_on_plateau_of_values_of_either_sign(sign):
    """The margin is a share of the best value's magnitude."""
    tx = gradtx.reduce_on_plateau(factor=0.5, patience=2, rtol=0.1)
    state = tx.init(None)
    for value in 8 * [sign]:
        _, state = tx.update(jnp.ones(1), state, value=value)
    assert float(state.scale) < 1
    for better, improves in [(sign - 0.05, False), (sign - 0.11, True)]:
        _, after = tx.update(jnp.ones(1), state, value=better)
        assert (float(after.best_value) == np.float32(better)) == improves


def test_a_loss_that_is_nan_is_no_improvement():
    tx = gradtx.reduce_on_plateau(factor=0.5, patience=2)
    state = tx.init(None)
    for value in (1.0, np.nan, np.nan):
        _, state = tx.update(jnp.ones(1), state, value=value)
    assert float(state.scale) == 0.5 and float(state.best_value) == 1.0
    for value in (0.5, 0.25):
        _, state = tx.update(jnp.ones(1), state, value=value)
    assert float(state.scale) == 0.5 and float(state.best_value) == 0.25


# ---- Numbers ------------------------------------------------------------------------------------


def test_quotients_of_zeros_are_zero_and_have_slopes():
    for dtype in (jnp.float32, jnp.complex64):
        zero = jnp.zeros((), dtype)

        def f(x):
            return jnp.real(numerics.ratio(x, numerics.abs_sq(x), 0.0))

        assert float(f(zero)) == 0.0
        assert np.isfinite(jax.grad(f)(zero))
    np.testing.assert_allclose(numerics.ratio(jnp.array(3.0), jnp.array(4.0), 1.0), 1.0)
    assert float(jax.grad(numerics.safe_sqrt)(0.0)) == 0.0
    assert float(numerics.safe_sqrt(jnp.float32(9.0))) == 3.0


def test_the_smallest_numbers_survive_a_quotient():
    """Also where XLA turns `a / b / c` into `a / (b * c)`, and the product is below the normal
    numbers, which it takes for 0."""
    for size in (1e-38, 1e-30, 1e-20):
        for piece in (
            gradtx.scale_by_adam(eps=0.0),
            gradtx.scale_by_amsgrad(eps=0.0),
            gradtx.scale_by_adamax(eps=0.0),
            gradtx.scale_by_rms(eps=0.0),
            gradtx.scale_by_rss(0.0, eps=0.0),
        ):
            g = jnp.asarray([size, 0.0], jnp.float32)
            for update in (piece.update, jax.jit(piece.update)):
                updates, _ = update(g, piece.init(g))
                assert bool(jnp.all(jnp.isfinite(updates)))
                assert abs(float(updates[0])) < 4.0 and float(updates[1]) == 0.0


def test_squares_that_overflow_leave_no_nan():
    g = jnp.asarray([1e30, -1e30, 1.0], jnp.float32)
    for tx in (
        gradtx.scale_by_rms(),
        gradtx.scale_by_stddev(),
        gradtx.scale_by_stddev(bias_correction=True),
        gradtx.scale_by_adam(nesterov=True),
    ):
        updates, _, _ = walk(tx, g, [g, g])
        assert not bool(jnp.any(jnp.isnan(updates)))


def test_counters_stop_at_their_largest_value():
    for dtype in (jnp.int32, jnp.uint8, jnp.int8):
        top = jnp.iinfo(dtype).max
        assert int(gradtx.safe_increment(jnp.asarray(top, dtype))) == top
        assert int(gradtx.safe_increment(jnp.asarray(top - 1, dtype))) == top
        assert gradtx.safe_increment(jnp.asarray(3, dtype)).dtype == dtype
    tx = gradtx.adam(0.1)
    state = tx.init(jnp.ones(1))
    late = state[0]._replace(count=jnp.int32(2**31 - 1))
    updates, new = tx.update(jnp.ones(1), (late, state[1]))
    assert int(new[0].count) == 2**31 - 1 and bool(jnp.isfinite(updates[0]))


def test_tree_arithmetic():
    x = {"a": jnp.array([1.0, 2.0]), "none": None, "h": jnp.array([2.0], jnp.bfloat16)}
    y = {"a": jnp.array([3.0, 5.0]), "none": None, "h": jnp.array([4.0], jnp.bfloat16)}
    t = gradtx.tree
    assert_equal(
        t.add(x, y, y), {**x, "a": jnp.array([7.0, 12.0]), "h": jnp.array([10.0], jnp.bfloat16)}
    )
    assert_equal(t.sub(y, x)["a"], jnp.array([2.0, 3.0]))
    assert_equal(t.mul(x, y)["a"], jnp.array([3.0, 10.0]))
    assert_equal(t.div(y, x)["a"], jnp.array([3.0, 2.5]))
    assert_equal(t.scale(2, x)["h"], jnp.array([4.0], jnp.bfloat16))
    assert_equal(t.add_scale(x, 0.5, y)["a"], jnp.array([2.5, 4.5]))
    assert avals(t.zeros_like(x)) == avals(x)
    assert t.zeros_like(x, jnp.float16)["h"].dtype == jnp.float16
    assert t.cast(x, None) is x and t.cast(x, jnp.float16)["a"].dtype == jnp.float16
    assert float(t.sum(x)) == 5.0 and t.size(x) == 3
    assert float(t.vdot(x, y)) == 3 + 10 + 8
    z = jnp.array([1.0 + 2.0j])
    assert complex(t.vdot({"z": z}, {"z": 1j * z})) == 5j
    many = jnp.ones(1000, jnp.bfloat16)  # which bfloat16 cannot count
    assert float(t.sum(many)) == 1000.0 and float(t.vdot(many, many)) == 1000.0
