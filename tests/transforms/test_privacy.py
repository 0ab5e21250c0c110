"""Differentially private aggregation: its bound, its noise, its keys, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest
import trees
from test_bad_inputs import refused
from trees import assert_equal, avals

import gradtx

N = 40_000
CHANCE = 4 / np.sqrt(N)
"""What chance leaves of a correlation, or half of that of a variance; all seeds are fixed."""


def aggregate(grads, clip=1.0, multiplier=0.0, key=0, steps=1):
    """The updates of each step, for gradients of examples."""
    tx, out = gradtx.differentially_private_aggregate(clip, multiplier, key), []
    state = tx.init(None)
    for _ in range(steps):
        updates, state = tx.update(grads, state)
        out.append(updates)
    return out


def examples(dtype=jnp.float64):
    sizes = jnp.array([1, 2, 0, 0.1, 3], dtype)
    w, b = trees.numbers((5, 2, 3), 1, dtype), trees.numbers((5,), 2, dtype)
    return {"w": sizes.reshape(5, 1, 1) * w, "b": [sizes * b, None]}


# ---- Clipping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 1.0, 5.0, jnp.inf])
def test_the_mean_of_clipped_gradients(clip, x64):
    grads = examples()
    w, b = np.asarray(grads["w"]), np.asarray(grads["b"][0])
    norms = np.sqrt(np.sum(w**2, (1, 2)) + b**2)
    factors = [min(1.0, clip / n) if n else 1.0 for n in norms]
    assert sum(f < 1 for f in factors) == {0.0: 4, 1.0: 3, 5.0: 2, jnp.inf: 0}[clip]
    (ours,) = aggregate(grads, clip)
    np.testing.assert_allclose(ours["w"], np.tensordot(factors, w, 1) / 5, rtol=1e-13)
    np.testing.assert_allclose(ours["b"][0], factors @ b / 5, rtol=1e-13)
    assert ours["b"][1] is None
    theirs = optax.contrib.differentially_private_aggregate(clip, 0.0, 0)
    if np.isfinite(clip):  # of no bound and no noise optax makes infinity times zero
        wanted, _ = theirs.update(grads, theirs.init(None))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), ours, wanted)


@pytest.mark.parametrize(
    ("size", "dtype"), [(1e25, "float32"), (300, "float16"), (3e38, "bfloat16"), (1.0, "complex64")]
)
def test_no_example_moves_the_sum_by_more_than_the_bound(size, dtype):
    """optax lets norms overflow, which takes an example's gradient for nothing."""
    grads = {"a": jnp.full((2, 4), size, dtype), "b": jnp.full((2, 5), size, dtype)}
    without = jax.tree.map(lambda x: x.at[1].set(0), grads)
    (both,), (one,) = aggregate(grads), aggregate(without)
    moved = jax.tree.map(lambda x, y: 2 * (x - y).astype(jnp.complex64), both, one)
    norm = np.sqrt(sum(np.sum(np.abs(x) ** 2) for x in jax.tree.leaves(moved)))
    np.testing.assert_allclose(norm, 1.0, rtol=float(jnp.finfo(dtype).eps) * 4)


def test_half_precision_is_added_up_in_float32():
    """The mean of 1000 gradients and of their noise is rounded once."""
    g = trees.numbers((1000, 7), 1, jnp.bfloat16)
    (ours,), (wide,) = (aggregate([x], 1.0, 1.0)[0] for x in (g, g.astype(jnp.float32)))
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, wide.astype(jnp.bfloat16))


def test_what_is_not_finite_stays_visible():
    for wrong in (jnp.nan, jnp.inf):
        (updates,) = aggregate([jnp.array([[1.0, wrong], [1.0, 1.0]])])
        assert not np.isfinite(updates[0]).all()


# ---- Noise --------------------------------------------------------------------------------------


def noise(tree, clip=2.0, multiplier=3.0, key=0, steps=1):
    """The noise in the sum over eight examples without gradients."""
    zeros = jax.tree.map(lambda x: jnp.zeros((8, *x.shape), x.dtype), tree)
    found = aggregate(zeros, clip, multiplier, key, steps)
    return jax.tree.map(lambda x: 8 * np.asarray(x), found)


def test_the_sum_gets_normal_noise_of_the_bounds_size():
    (x,) = noise(jnp.zeros(N))
    assert abs(np.mean(x)) < 6 * CHANCE
    for deviations, share in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        assert abs(np.mean(np.abs(x) < deviations * 2 * 3) - share) < CHANCE
    for clip, multiplier in ((2.0, 0.5), (0.1, 3.0), (jnp.float32(0.1), jnp.float32(3.0))):
        (x,) = noise(jnp.zeros(N), clip, multiplier)
        np.testing.assert_allclose(np.std(x), clip * multiplier, rtol=CHANCE)


def test_the_noise_is_there_beside_gradients(x64):
    g = [trees.numbers((4, 3), 1, jnp.float64)]
    (noisy,), (clean,) = aggregate(g, 1.0, 2.0), aggregate(g, 1.0, 0.0)
    (alone,) = aggregate([jnp.zeros((4, 3))], 1.0, 2.0)
    np.testing.assert_allclose(noisy[0] - clean[0], alone[0], rtol=1e-12)


def test_every_leaf_and_every_step_has_noise_of_its_own():
    tree = {"a": jnp.zeros(N), "b": [jnp.zeros(N), jnp.zeros((N // 8, 8))]}
    found = [np.ravel(x) for x in jax.tree.leaves(noise(tree, steps=3))]
    assert len(found) == 9
    for i, x in enumerate(found):
        for y in found[:i]:
            assert abs(np.corrcoef(x, y)[0, 1]) < CHANCE


def test_both_parts_of_complex_numbers_get_the_whole_noise():
    """An example can move the real part alone by the bound. With optax the parts have half of the
    variance, and with it less privacy than an accountant of the multiplier says."""
    (x,) = noise(jnp.zeros(N, jnp.complex64), 1.0, 1.0)
    for part in (x.real, x.imag):
        np.testing.assert_allclose(np.var(part), 1.0, rtol=2 * CHANCE)
    assert abs(np.corrcoef(x.real, x.imag)[0, 1]) < CHANCE
    theirs = optax.contrib.differentially_private_aggregate(1.0, 1.0, 0)
    x, _ = theirs.update(jnp.zeros((1, N), jnp.complex64), theirs.init(None))
    np.testing.assert_allclose(np.var(x.real), 0.5, rtol=2 * CHANCE)


def test_the_first_noise_of_half_precision_is_drawn_in_float32():
    """optax draws 8 bits; rounding the sum once leaves more different values."""
    (wide,), (half,) = noise(jnp.zeros(N)), noise(jnp.zeros(N, jnp.bfloat16))
    np.testing.assert_array_equal(half, np.asarray(wide / 8).astype(jnp.bfloat16) * 8)


# ---- Keys ---------------------------------------------------------------------------------------


def test_ways_to_give_a_key():
    g = [jnp.ones((2, 3))]
    make = gradtx.differentially_private_aggregate
    same = [
        make(1.0, 1.0, 3),
        make(1.0, 1.0, seed=3),
        make(1.0, 1.0, key=jax.random.key(3)),
        make(1.0, 1.0, jax.random.PRNGKey(3)),
        gradtx.chain(make(1.0, 1.0, jnp.uint32(3))),
    ]
    first = same[0].update(g, same[0].init(g))[0]
    for tx in same[1:]:
        assert_equal(tx.update(g, tx.init(g))[0], first)
    other = make(1.0, 1.0, 4)
    assert np.all(other.update(g, other.init(g))[0][0] != first[0])
    with refused(
        ValueError, "differentially_private_aggregate", "give key or seed, got both: 1 and 2"
    ):
        make(1.0, 1.0, 1, seed=2)
    with refused(ValueError, "differentially_private_aggregate", "shape (2,)"):
        make(1.0, 1.0, jax.random.split(jax.random.key(0)))


def test_noise_that_everybody_knows_comes_with_a_warning():
    with pytest.warns(UserWarning, match="differentially_private_aggregate: without key or seed"):
        tx = gradtx.differentially_private_aggregate(1.0, 1.0)
    g = [jnp.ones((2, 3))]
    assert_equal(tx.update(g, tx.init(g))[0], aggregate(g, 1.0, 1.0, 0)[0])
    gradtx.differentially_private_aggregate(1.0, 0.0)  # without noise there is nothing to know


def test_the_key_stands_in_the_state_and_moves_on():
    tx = gradtx.differentially_private_aggregate(1.0, 1.0, 5)
    g, params = {"a": jnp.ones((2, 3))}, {"a": jnp.ones(3)}
    state = tx.init(params)
    assert isinstance(state, gradtx.DifferentiallyPrivateAggregateState)
    assert avals(jax.eval_shape(tx.init, params)) == avals(state)
    update = jax.jit(tx.update, donate_argnums=1)
    _, second = update(g, state, params)
    assert avals(second) == avals(state)
    fresh = tx.init(params)  # the first key's buffer was given away with the state
    a, _ = tx.update(g, fresh, params)
    b, _ = tx.update(g, second, params)
    assert np.all(a["a"] != b["a"])
    for tree in ({}, (), {"a": None}):
        updates, new = tx.update(tree, tx.init(tree), tree)
        assert updates == tree and avals(new) == avals(state)


def test_jit_vmap_and_scan():
    tx = gradtx.dpsgd(0.1, 1.0, 0.5, seed=3, momentum=0.9)
    params, g = trees.small(), jax.tree.map(lambda x: jnp.stack([x, 2 * x, -x]), trees.small())
    state = tx.init(params)
    eager, new = tx.update(g, state, params)
    assert avals(new) == avals(state) and avals(eager) == avals(params)
    trees.assert_ulps(jax.jit(tx.update)(g, state, params), (eager, new), 4, of_largest=True)
    keys = jax.random.split(jax.random.key(0), 3)

    def with_key(key):
        tx = gradtx.differentially_private_aggregate(1.0, 0.5, key)
        return tx.update(g, tx.init(params), params)[0]

    many = jax.jit(jax.vmap(with_key))(keys)
    alone = with_key(keys[1])
    trees.assert_ulps(jax.tree.map(lambda x: x[1], many), alone, 4, of_largest=True)
    last, _ = jax.lax.scan(lambda s, _: (tx.update(g, s, params)[1], None), state, length=3)
    assert avals(last) == avals(state)


# ---- Descent ------------------------------------------------------------------------------------


def quadratic(p, x):
    return jnp.sum((p - x) ** 2)


PER_EXAMPLE = jax.vmap(jax.grad(quadratic), (None, 0))


def test_dpsgd_without_noise_and_bound_is_sgd(x64):
    x, params = trees.numbers((4, 3), 1, jnp.float64), trees.numbers((3,), 2, jnp.float64)
    for more in ({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}):
        private = gradtx.dpsgd(lambda t: 0.1 / (t + 1), 1e6, 0.0, 0, **more)
        plain = gradtx.sgd(lambda t: 0.1 / (t + 1), **more)
        p, q, s, r = params, params, private.init(params), plain.init(params)
        for _ in range(3):
            updates, s = private.update(PER_EXAMPLE(p, x), s, p)
            p = gradtx.apply_updates(p, updates)
            updates, r = plain.update(jnp.mean(PER_EXAMPLE(q, x), 0), r, q)
            q = gradtx.apply_updates(q, updates)
        np.testing.assert_allclose(p, q, rtol=1e-13)
        kinds = [type(part).__name__ for part in s]
        middle = "TraceState" if more else "EmptyState"
        assert kinds == [
            "DifferentiallyPrivateAggregateState", middle, "ScaleByLearningRateState"
        ]  # fmt: skip


def test_dpsgd_agrees_with_optax_over_100_steps_of_clipping(x64):
    g = {
        "w": trees.numbers((100, 4, 3), 1, jnp.float64),
        "b": trees.numbers((100, 4), 2, jnp.float64),
    }
    params = jax.tree.map(lambda x: jnp.zeros(x.shape[2:], x.dtype), g)

    def run(tx):
        def step(state, g):
            updates, state = tx.update(g, state, params)
            return state, updates

        return jax.jit(lambda: jax.lax.scan(step, tx.init(params), g)[1])()

    ours = run(gradtx.dpsgd(0.1, 1.5, 0.0, 0, 0.9, True))
    with pytest.warns(DeprecationWarning):
        theirs = optax.contrib.dpsgd(0.1, 1.5, 0.0, 0, 0.9, True)
    theirs = run(theirs)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), ours, theirs)


def test_training_with_noise_comes_near():
    """At a constant rate, the noise that stays has the deviation of its stationary law."""
    x = jnp.full((10, 2000), 3.0)  # 2000 problems of one parameter, clipped together
    tx = gradtx.dpsgd(0.05, 20.0, 1.0, seed=1)

    @jax.jit
    def train(p):
        def step(carry, _):
            p, state = carry
            updates, state = tx.update(PER_EXAMPLE(p, x), state, p)
            return (p + updates, state), None

        return jax.lax.scan(step, (p, tx.init(p)), length=1000)[0][0]

    p = train(jnp.full(2000, 2.9))
    # p - 3 becomes 0.9 of itself each step, and gets 0.05 * 20 * 1 / 10 of noise
    np.testing.assert_allclose(np.std(p), 0.1 / np.sqrt(1 - 0.9**2), rtol=0.1)
    assert abs(np.mean(p) - 3) < 0.03


# ---- What is refused ----------------------------------------------------------------------------


def test_numbers_that_cannot_be():
    name = "differentially_private_aggregate"
    with refused(ValueError, f"{name}: l2_norm_clip must not be negative, got -1.0"):
        gradtx.differentially_private_aggregate(-1.0, 1.0, 0)
    with refused(ValueError, "dpsgd: noise_multiplier must be finite and not negative, got -0.5"):
        gradtx.dpsgd(0.1, 1.0, -0.5, 0)


def test_gradients_without_examples():
    tx = gradtx.differentially_private_aggregate(1.0, 1.0, 0)
    name = "differentially_private_aggregate"
    params = {"a": jnp.ones((4, 3)), "b": jnp.ones(())}
    state = tx.init(params)

    def with_b(*shape):
        return {"a": jnp.ones((2, 4, 3)), "b": jnp.ones(shape)}

    with refused(ValueError, name, "updates['b'] is a scalar", "jax.vmap(jax.grad(loss)"):
        tx.update(with_b(), state)
    with refused(ValueError, name, "updates['b'] has 3 examples", "updates['a'] has 2"):
        tx.update(with_b(3), state)
    with refused(ValueError, name, "updates['a'] has shape (4, 3)", "params['a'] has shape (4, 3)"):
        tx.update({"a": jnp.ones((4, 3)), "b": jnp.ones(4)}, state, params)
    with refused(ValueError, name, "updates['a'] needs at least one example, got shape (0, 3)"):
        jax.jit(tx.update)({"a": jnp.ones((0, 3))}, state)
    with refused(TypeError, name, "updates['a']", "int32"):
        tx.update({"a": jnp.ones((2, 3), jnp.int32)}, state)
    with refused(ValueError, name, "only params has params['b']"):
        tx.update({"a": jnp.ones((2, 4, 3))}, state, params)
    with refused(TypeError, name, "a dict", "update(updates, state, params)"):
        tx.update(state, params)
