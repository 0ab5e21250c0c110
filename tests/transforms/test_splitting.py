"""Complex numbers as pairs of real ones, and updates of norm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_conformance import walk
from trees import assert_equal, assert_ulps, avals

import gradtx

split = gradtx.split_real_and_imaginary


def problem(n=3):
    params = trees.small(with_complex=True)
    return params, [trees.like(params, i) for i in range(n)]


def by_hand(tree):
    """The same tree, the complex leaf under two names."""
    rest = {k: v for k, v in tree.items() if k != "z"}
    return {**rest, "z": {"a": jnp.real(tree["z"]), "b": jnp.imag(tree["z"])}}


def test_each_part_goes_its_own_way():
    params, gradients = problem()
    updates, state, moved = walk(split(gradtx.adamw(0.1)), params, gradients)
    parts, inner, apart = walk(gradtx.adamw(0.1), by_hand(params), list(map(by_hand, gradients)))
    assert_equal((by_hand(updates), by_hand(moved)), (parts, apart))
    assert isinstance(state, gradtx.SplitRealAndImaginaryState)
    assert_equal(jax.tree.leaves(state), jax.tree.leaves(inner))
    assert avals(state) == avals(split(gradtx.adamw(0.1)).init(params))
    assert avals(updates) == avals(params)


@pytest.mark.parametrize("name", ["adam", "momo_adam"])
def test_what_is_for_real_numbers_takes_complex_ones(name):
    target = trees.numbers((3,), 8, jnp.complex64)

    def loss(z):
        return jnp.sum(jnp.abs(z - target) ** 2)

    tx = split(getattr(gradtx, name)(0.1))

    @jax.jit
    def train(z):
        def step(carry, _):
            z, state = carry
            value, slope = jax.value_and_grad(loss)(z)
            updates, state = tx.update(jnp.conj(slope), state, z, value=value)
            return (gradtx.apply_updates(z, updates), state), None

        return jax.lax.scan(step, (z, tx.init(z)), length=200)[0][0]

    zero = jnp.zeros(3, jnp.complex64)
    assert loss(train(zero)) < 0.01 * loss(zero)


def test_optax_agrees(x64):
    params = {"z": trees.numbers((3,), 1, complex), "r": trees.numbers((2,), 2, float)}
    gradients = [trees.like(params, i) for i in range(5)]
    ours = walk(split(gradtx.adam(0.1)), params, gradients)
    theirs = optax.contrib.split_real_and_imaginary(optax.adam(0.1))
    wanted = walk(theirs, params, gradients)
    assert_ulps(ours[2], wanted[2], 16, of_largest=True)


def test_a_line_search_sees_complex_parameters():
    target = {"z": jnp.array([1.0 + 2.0j, -3.0j]), "r": jnp.ones(2)}

    def loss(p):
        assert jnp.iscomplexobj(p["z"])
        return sum(jnp.sum(jnp.abs(p[k] - target[k]) ** 2) for k in p)

    tx = split(gradtx.lbfgs())
    params = jax.tree.map(jnp.zeros_like, target)
    state = tx.init(params)
    for _ in range(3):
        value, slope = jax.value_and_grad(loss)(params)
        g = jax.tree.map(jnp.conj, slope)
        updates, state = tx.update(g, state, params, value=value, grad=g, value_fn=loss)
        params = gradtx.apply_updates(params, updates)
    assert loss(params) < 1e-8


def test_masks_and_missing_gradients():
    params, (g, *_) = problem()
    tx = split(
        gradtx.adamw(0.1, weight_decay=0.5, mask={"a": True, "b": True, "c": True, "z": 0 > 1})
    )
    plain = split(gradtx.adamw(0.1, weight_decay=0.0))
    decayed, undecayed = (walk(t, params, [g])[0] for t in (tx, plain))
    assert_equal(decayed["z"], undecayed["z"])
    assert np.all(decayed["a"] != undecayed["a"])
    state = tx.init(params)
    updates, new = tx.update({**g, "z": None}, state, params)
    assert updates["z"] is None and avals(new) == avals(state)
    assert_equal(updates["a"], decayed["a"])
    masked = gradtx.masked(tx, {"a": True, "b": True, "c": True, "z": False})
    assert_equal(walk(masked, params, [g])[0]["z"], g["z"])


def test_under_jit_and_for_trees_of_shapes():
    params, (g, *_) = problem()
    tx = split(gradtx.adam(0.1))
    state = tx.init(params)
    assert avals(jax.eval_shape(tx.init, params)) == avals(state)
    assert_ulps(jax.jit(tx.update)(g, state, params), tx.update(g, state, params))


def test_complex_and_real_beside_each_other_are_refused():
    params, (g, *_) = problem()
    tx = split(gradtx.adam(0.1))
    state = tx.init(params)
    with pytest.raises(
        TypeError, match=r"split_.*updates\['z'\] is float32, but params\['z'\] is comp"
    ):
        tx.update({**g, "z": jnp.ones(3)}, state, params)
    with pytest.raises(
        TypeError, match=r"updates\['b'\] is complex64, but params\['b'\] is float32"
    ):
        tx.update({**g, "b": g["z"]}, state, params)


def test_normalized_updates_have_norm_1_and_zeros_stay():
    _, (g, *_) = problem()
    tx = gradtx.normalize()
    assert isinstance(tx.init(g), gradtx.NormalizeState)
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(gradtx.global_norm(updates), 1.0, rtol=1e-6)
    assert_ulps(updates, optax.contrib.normalize().update(g, optax.EmptyState())[0], 2)
    zeros = jax.tree.map(jnp.zeros_like, g)
    assert_equal(tx.update(zeros, tx.init(g))[0], zeros)
    theirs, _ = optax.contrib.normalize().update(zeros, optax.EmptyState())
    assert all(np.all(np.isnan(x)) for x in jax.tree.leaves(theirs))
    # 300 in float16, a hundred times: their norm is 3000, its square no float16
    half = [jnp.full((25,), 300.0, jnp.float16)] * 4
    for x in tx.update(half, tx.init(half))[0]:
        np.testing.assert_allclose(x, 0.1, rtol=1e-3)
