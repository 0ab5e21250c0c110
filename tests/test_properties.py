"""Properties of random chains on random trees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from hypothesis import HealthCheck, given, settings, strategies as st
from test_conformance import walk
from trees import Layer, Pair, assert_ulps, avals

import gradtx

few = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

SHAPES = [(), (2,), (2,), (3, 1), (0, 2)]  # few, so that compiled code is shared
DTYPES = ["float32", "float32", "bfloat16", "float16", "complex64"]


def arrays(dtypes=DTYPES):
    return st.builds(
        lambda shape, dtype, seed: trees.numbers(shape, seed, dtype),
        st.sampled_from(SHAPES),
        st.sampled_from(dtypes),
        st.integers(0, 9),
    )


def any_tree(dtypes=DTYPES):
    return st.recursive(
        arrays(dtypes) | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
            | st.builds(Pair, inner, inner)
            | st.builds(Layer, inner, inner)
            | st.tuples(inner)
        ),
        max_leaves=5,
    ).filter(lambda tree: tree is not None)  # as parameters, it would say that there are none


def halve(count):
    return 0.5**count


# Pieces that both libraries have: the name, and arguments for it.
SHARED = {
    "add_decayed_weights": [{"weight_decay": 0.1}],
    "clip_by_global_norm": [{"max_norm": 0.7}],
    "identity": [{}],
    "scale": [{"step_size": -0.3}],
    "scale_by_adadelta": [{"rho": 0.8, "eps": 1e-3}],
    "scale_by_adam": [{}, {"b1": 0.5, "nesterov": True}, {"eps_root": 1e-4}],
    "scale_by_adamax": [{"b2": 0.9}],
    "scale_by_amsgrad": [{"b2": 0.5}],
    "scale_by_learning_rate": [{"learning_rate": 0.3}, {"learning_rate": halve}],
    "scale_by_rms": [{"eps": 1e-3}, {"bias_correction": True, "eps_in_sqrt": False}],
    "scale_by_rss": [{}],
    "scale_by_schedule": [{"step_size_fn": halve}],
    "set_to_zero": [{}],
    "trace": [{"decay": 0.5}, {"decay": 0.9, "nesterov": True}],
}
OURS = {"scale_by_uncorrected_adam": [{}], "scale_by_stddev": [{"eps": 1e-2}]}
REAL_ONLY = {"clip": [{"max_delta": 0.4}], "scale_by_rprop": [{"learning_rate": 0.1}]}


def pieces(*tables, max_size=4):
    """Lists of a piece's name and its arguments."""
    known = [(name, kw) for table in tables for name, many in table.items() for kw in many]
    return st.lists(st.sampled_from(known), max_size=max_size)


def build(library, recipe):
    return [getattr(library, name)(**kw) for name, kw in recipe]


def with_gradients(tree, n=2):
    return [trees.like(tree, 100 * (i + 1)) for i in range(n)]


@given(any_tree(), pieces(SHARED, OURS))
@few
def test_any_chain_keeps_any_tree(tree, recipe):
    tx = gradtx.chain(*build(gradtx, recipe))
    first = tx.init(tree)
    assert avals(jax.eval_shape(tx.init, tree)) == avals(first)
    updates, state, params = walk(tx, tree, with_gradients(tree))
    assert avals(state) == avals(first)
    assert avals(updates) == avals(params) == avals(tree)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((updates, state)))


@given(any_tree(), pieces(SHARED, OURS))
@few
def test_jit_changes_nothing(tree, recipe):
    tx = gradtx.chain(*build(gradtx, recipe))
    state, (g,) = tx.init(tree), with_gradients(tree, 1)
    # XLA joins the pieces of a whole chain as it likes, and leaves out roundings between them.
    jitted, eager = jax.jit(tx.update)(g, state, tree), tx.update(g, state, tree)
    assert_ulps(jitted, eager, 8, of_largest=True)


@pytest.mark.thorough
@given(any_tree(["float32", "complex64"]), pieces(SHARED, OURS), st.randoms(use_true_random=False))
@few
def test_fused_or_not_and_nested_or_not(tree, recipe, random):
    """A chain equals its pieces one at a time, however it is put in brackets."""
    gradients = with_gradients(tree)
    parts = build(gradtx, recipe)

    def bracket(parts):
        if len(parts) < 2:
            return gradtx.chain(*parts)
        cut = random.randrange(1, len(parts))
        return gradtx.chain(bracket(parts[:cut]), gradtx.masked(bracket(parts[cut:]), True))

    states, params = [tx.init(tree) for tx in parts], tree
    for g in gradients:
        updates = g
        for i, tx in enumerate(parts):
            updates, states[i] = tx.update(updates, states[i], params)
        params = gradtx.apply_updates(params, updates)
    for tx in (gradtx.chain(*parts), bracket(parts)):
        together, state, moved = walk(tx, tree, gradients)
        assert_ulps((together, moved), (updates, params), 64, of_largest=True)
        assert_ulps(jax.tree.leaves(state), jax.tree.leaves(states), 64, of_largest=True)


@pytest.mark.thorough
@given(any_tree(["float32"]), pieces(SHARED, OURS, REAL_ONLY), st.data())
@few
def test_masked_leaves_are_as_if_they_were_not_there(tree, recipe, data):
    leaves, treedef = jax.tree.flatten(tree)
    if not leaves:
        return
    keep = data.draw(st.lists(st.booleans(), min_size=len(leaves), max_size=len(leaves)))
    tx = gradtx.chain(*build(gradtx, recipe))
    masked = gradtx.masked(tx, treedef.unflatten(keep))
    gradients = with_gradients(tree)
    updates, state, _ = walk(masked, tree, gradients)
    assert avals(state) == avals(masked.init(tree))

    def kept(tree):
        return [x for x, k in zip(jax.tree.leaves(tree), keep, strict=True) if k]

    alone, alone_state, _ = walk(tx, kept(tree), list(map(kept, gradients)))
    assert_ulps(kept(updates), alone, 8, of_largest=True)
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(alone_state))
    for u, g, k in zip(jax.tree.leaves(updates), jax.tree.leaves(gradients[-1]), keep, strict=True):
        if not k:
            np.testing.assert_array_equal(u, g)


@pytest.mark.thorough
@given(any_tree(["float32"]), pieces(SHARED, {"clip": [{"max_delta": 0.4}]}))
@few
def test_optax_gives_the_same_in_float64(tree, recipe):
    with jax.enable_x64(True):
        tree = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), tree)
        gradients = with_gradients(tree, 3)
        ours = walk(gradtx.chain(*build(gradtx, recipe)), tree, gradients)
        theirs = optax.chain(optax.identity(), *build(optax, recipe))  # its chains can't be empty
        wanted = jax.jit(lambda p, gs: walk(theirs, p, gs))(tree, gradients)
        for ours_part, part in zip((ours[0], ours[2]), (wanted[0], wanted[2]), strict=True):
            for a, b in zip(jax.tree.leaves(ours_part), jax.tree.leaves(part), strict=True):
                assert a.dtype == b.dtype == jnp.float64
                largest = np.max(np.abs(b), initial=0.0)
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * largest)


@pytest.mark.thorough
@given(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=6), st.integers(0, 3))
@few
def test_a_partition_is_its_parts(labels, seed):
    params = [trees.numbers((2,), seed + i) for i in range(len(labels))]
    gradients = with_gradients(params)
    parts = {"x": gradtx.adamw(0.1), "y": gradtx.momentum(0.2), "z": gradtx.set_to_zero()}
    updates, state, _ = walk(gradtx.partition(parts, labels), params, gradients)
    assert avals(state) == avals(gradtx.partition(parts, labels).init(params))
    for i, label in enumerate(labels):
        alone, _, _ = walk(parts[label], params[i], [g[i] for g in gradients])
        assert_ulps(updates[i], alone, 8, of_largest=True)


@pytest.mark.parametrize("name", sorted(SHARED))
def test_every_shared_piece_is_one_of_both(name):
    assert hasattr(gradtx, name) and hasattr(optax, name)
