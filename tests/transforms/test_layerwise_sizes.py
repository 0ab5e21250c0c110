"""Pieces that measure steps by the size of each leaf, or of all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_references import run
from trees import assert_equal

import gradtx

PARAMS = {"w": trees.numbers((2, 3), 1), "b": trees.numbers((3,), 2), "s": trees.numbers((), 3)}
GRADIENTS = [trees.like(PARAMS, 10 * i) for i in range(1, 6)]


def norms(tree):
    return jax.tree.map(lambda x: float(np.linalg.norm(np.ravel(x).astype(np.complex128))), tree)


def one_step(tx, g, p):
    return tx.update(g, tx.init(p), p)[0]


# ---- The trust ratio -------------------------------------------------------------------------


def test_steps_have_the_norm_of_the_parameters():
    steps = one_step(gradtx.scale_by_trust_ratio(), GRADIENTS[0], PARAMS)
    for name, size in norms(PARAMS).items():
        np.testing.assert_allclose(norms(steps)[name], size, rtol=1e-6)
        np.testing.assert_array_equal(np.sign(steps[name]), np.sign(GRADIENTS[0][name]))


@pytest.mark.parametrize("where", ["params", "gradient", "both"])
def test_a_norm_of_zero_leaves_the_step_as_it_is(where):
    zero, g = jnp.zeros(3), jnp.array([1.0, -2.0, 3.0])
    p = zero if where != "gradient" else g
    g = zero if where != "params" else g
    tx = gradtx.scale_by_trust_ratio(trust_coefficient=0.1)
    assert_equal(one_step(tx, g, p), g)
    slopes = jax.grad(lambda g, p: jnp.sum(one_step(tx, g, p)), argnums=(0, 1))(g, p)
    assert np.all(np.isfinite(slopes))


def test_a_norm_that_overflows_leaves_the_step_as_it_is():
    g = jnp.array([1.0, 0.0])
    assert_equal(one_step(gradtx.scale_by_trust_ratio(), g, jnp.array([3e38, 3e38])), g)
    assert np.all(one_step(gradtx.scale_by_trust_ratio(), jnp.array([3e38, 0.0]), g) == 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_norms_of_half_precision_do_not_overflow(dtype):
    """The norm of these is 128,000; float16 ends at 65,504."""
    p = jnp.full(16, 32_000.0, dtype)
    g = jnp.full(16, 1e-4, dtype)
    lars = gradtx.lars(1.0, trust_coefficient=1.0)
    for tx, sign in ((gradtx.scale_by_trust_ratio(), 1), (lars, -1)):
        np.testing.assert_allclose(one_step(tx, g, p), sign * 32_000.0, rtol=1e-2)
        np.testing.assert_allclose(one_step(tx, p, g), sign * 1e-4, rtol=1e-2)
    # Four of 60,000 have a norm of 120,000, and 1e-2 of a step is 1,200.
    large = jnp.full(4, 60_000.0, dtype)
    for factory, size in (
        (gradtx.scale_by_param_block_norm, 1_200.0),
        (gradtx.scale_by_param_block_rms, 600.0),
    ):
        found = one_step(factory(), jnp.full(4, 1e-2, dtype), large)
        np.testing.assert_allclose(found, size, rtol=1e-2)
    found = one_step(gradtx.scale_by_novograd(), large, large)
    np.testing.assert_allclose(found, 0.5, rtol=1e-2)
    found = one_step(gradtx.normalize_by_update_norm(), {"a": large, "b": large}, None)
    np.testing.assert_allclose(found["a"], 8**-0.5, rtol=1e-2)


@pytest.mark.parametrize("option", [{}, {"nesterov": True}, {"separate_norms": True}], ids=str)
def test_lars_with_masks(option):
    """Biases without decay and ratio, as people use it."""
    mask = {"w": True, "b": False, "s": False}
    settings = {"weight_decay": 0.1, "trust_coefficient": 0.5, **option}
    by_mask = {
        name: run(gradtx.lars(0.1, **settings, weight_decay_mask=m, trust_ratio_mask=m), *problem)
        for name, m, problem in (
            ("tree", mask, (GRADIENTS, PARAMS)),
            ("function", lambda tree: mask, (GRADIENTS, PARAMS)),
        )
    }
    w_alone = run(gradtx.lars(0.1, **settings), [g["w"] for g in GRADIENTS], PARAMS["w"])
    plain = gradtx.sgd(0.1, momentum=0.9, nesterov=option.get("nesterov", False))
    b_alone = run(plain, [g["b"] for g in GRADIENTS], PARAMS["b"])
    for steps in by_mask.values():
        for step, w, b in zip(steps, w_alone, b_alone, strict=True):
            np.testing.assert_allclose(step["w"], w, rtol=1e-6)
            np.testing.assert_allclose(step["b"], b, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match=r"lars.*mask.*params\['b'\]"):
        gradtx.lars(0.1, trust_ratio_mask={"w": True}).init(PARAMS)


def test_lamb_takes_steps_that_are_a_fraction_of_each_leaf():
    tx = gradtx.lamb(0.01, weight_decay=0.1)
    steps, params = run(tx, GRADIENTS, PARAMS), PARAMS
    for step in steps:
        for name, size in norms(params).items():
            np.testing.assert_allclose(norms(step)[name], 0.01 * size, rtol=1e-5)
        params = gradtx.apply_updates(params, step)


def test_fromage_keeps_the_norm_under_gradients_at_right_angles():
    p, turn, tx = jnp.array([3.0, 4.0]), jnp.array([[0.0, -1.0], [1.0, 0.0]]), gradtx.fromage(0.3)
    state = tx.init(p)
    for _ in range(10):
        updates, state = tx.update(turn @ p, state, p)
        p = p + updates
    np.testing.assert_allclose(jnp.linalg.norm(p), 5.0, rtol=1e-6)
    np.testing.assert_allclose(state[1].learning_rate, 0.3)


def test_small_rates_of_fromage_keep_their_digits():
    """`1 - 1 / sqrt(1 + 1e-8)` is 0 in float32, which knows nothing between 1 and 1 + 1e-7."""
    p = jnp.array([1.0, 0.0])
    updates = one_step(gradtx.fromage(1e-4), jnp.array([0.0, 1.0]), p)
    np.testing.assert_allclose(updates, [-5e-9, -1e-4], rtol=1e-6)
    (schedule,) = run(gradtx.fromage(lambda count: 1e-4 + count), [jnp.array([0.0, 1.0])], p)
    np.testing.assert_allclose(schedule, updates, rtol=1e-6)


# ---- Distance over gradients -----------------------------------------------------------------


def test_distance_over_gradients_agrees_with_optax(x64):
    def arrays(tree):  # of a scalar optax makes an array of shape (1,)
        return {name: np.asarray(tree[name], np.float64) for name in ("w", "b")}

    start, gradients = arrays(PARAMS), list(map(arrays, GRADIENTS))
    for setting in ({}, {"reps_rel": 0.1}, {"eps": 0.1}, {"global_scale": 0.3}):
        ours, theirs = (
            run(
                gradtx.chain(lib.scale_by_distance_over_gradients(**setting), gradtx.scale(-1.0)),
                gradients,
                start,
            )
            for lib in (gradtx, optax)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), ours, theirs)


def test_distance_over_gradients_starts_small_and_finds_its_size():
    target = jnp.array([3.0, -2.0])
    tx = gradtx.chain(gradtx.scale_by_distance_over_gradients(), gradtx.scale(-1.0))
    p = jnp.zeros(2)
    state = tx.init(p)

    @jax.jit
    def train(p, state):
        def step(carry, _):
            p, state = carry
            updates, state = tx.update(p - target, state, p)
            return (p + updates, state), jnp.linalg.norm(updates)

        return jax.lax.scan(step, (p, state), length=300)

    (p, state), sizes = train(p, state)
    np.testing.assert_allclose(sizes[0], 1e-6, rtol=1e-5)
    np.testing.assert_allclose(p, target, rtol=1e-3)
    assert 3.5 < float(state[0].max_dist) < 4.5  # the target is sqrt(13) away


def test_distance_over_gradients_of_complex_and_half_precision():
    """A rotation of the plane turns the steps with it."""
    z, g = jnp.array([3.0 + 4.0j, 1.0 - 2.0j]), jnp.array([1.0 - 1.0j, 2.0 + 0.5j])
    tx = gradtx.scale_by_distance_over_gradients(reps_rel=0.1)
    gradients = [g, 2 * g]
    steps = run(tx, gradients, z)
    turned = run(tx, [1j * x for x in gradients], 1j * z)
    np.testing.assert_allclose(turned, 1j * np.stack(steps), rtol=1e-6)
    assert tx.init(z).init_params.dtype == jnp.complex64
    state = tx.init(jnp.ones(2, jnp.bfloat16))
    assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}


# ---- All leaves together ---------------------------------------------------------------------


def test_normalized_updates_have_the_norm_that_was_asked_for():
    tx = gradtx.normalize_by_update_norm(scale_factor=3.0, eps=0.0)
    updates = one_step(tx, GRADIENTS[0], PARAMS)
    np.testing.assert_allclose(gradtx.global_norm(updates), 3.0, rtol=1e-6)
    theirs = one_step(optax.normalize_by_update_norm(scale_factor=3.0), GRADIENTS[0], PARAMS)
    ours = one_step(gradtx.normalize_by_update_norm(scale_factor=3.0), GRADIENTS[0], PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_normalizing_nothing_gives_nothing():
    zeros = {"a": jnp.zeros(2), "h": jnp.zeros(2, jnp.float16), "none": None}
    for eps in (1e-6, 0.0):
        tx = gradtx.normalize_by_update_norm(eps=eps)
        assert_equal(one_step(tx, zeros, None), zeros)

        def total(x, tx=tx):
            return jnp.sum(one_step(tx, x, None))

        assert np.all(np.isfinite(jax.grad(total)(jnp.zeros(2))))


def test_normalizing_by_traced_numbers():
    g = jnp.array([3.0, 4.0])
    found = jax.vmap(lambda size: one_step(gradtx.normalize_by_update_norm(size, 0.0), g, None))(
        jnp.array([1.0, 5.0])
    )
    np.testing.assert_allclose(found, [[0.6, 0.8], [3.0, 4.0]], rtol=1e-6)
