"""The noise of `add_noise`: its distribution, its independence, and where its keys come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import assert_equal, assert_ulps, checking_leaks

import gradtx

N = 40_000
# What chance leaves of a mean, a correlation or (twice that) a variance of N draws, in deviations;
# all seeds are fixed.
CHANCE = 4 / np.sqrt(N)


def noise(tree, steps=1, eta=1.0, gamma=0.55, key=0, **kwargs):
    """The noise of each step: what comes out of gradients of zero."""
    tx = gradtx.add_noise(eta, gamma, key, **kwargs)
    zeros, out = jax.tree.map(jnp.zeros_like, tree), []
    state = tx.init(zeros)
    for _ in range(steps):
        updates, state = tx.update(zeros, state)
        out.append(updates)
    return out


def correlation(x, y):
    return np.corrcoef(np.ravel(x), np.ravel(y))[0, 1]


def test_variance_fades_as_the_paper_says():
    found = noise(jnp.zeros(N), steps=6, eta=0.3, gamma=0.8)
    for t, x in enumerate(found, start=1):
        np.testing.assert_allclose(np.var(x), 0.3 / t**0.8, rtol=2 * CHANCE)
        assert abs(np.mean(x)) < CHANCE * np.std(x)


def test_noise_is_normal():
    (x,) = noise(jnp.zeros(N), eta=4.0)
    for deviations, share in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        assert abs(np.mean(np.abs(x) < 2 * deviations) - share) < CHANCE


def test_noise_without_fading_stays():
    found = noise(jnp.zeros(N), steps=3, eta=2.0, gamma=0.0)
    np.testing.assert_allclose([np.var(x) for x in found], 2.0, rtol=2 * CHANCE)


def test_every_leaf_and_every_step_has_noise_of_its_own():
    """Of leaves that are alike too, and of layers that repeat, which share compiled code."""
    layers = [{"w": jnp.zeros((N // 8, 8)), "b": jnp.zeros(N)} for _ in range(3)]
    first, second = noise({"layers": layers, "end": jnp.zeros(N)}, steps=2)
    found = [*jax.tree.leaves(first), *jax.tree.leaves(second)]
    assert len(found) == 14
    for i, x in enumerate(found):
        for y in found[:i]:
            assert abs(correlation(x, y)) < CHANCE * 1.25  # 91 pairs


def test_complex_leaves():
    (z,) = noise(jnp.zeros(N, jnp.complex64), eta=0.5)
    np.testing.assert_allclose(np.mean(np.abs(z) ** 2), 0.5, rtol=2 * CHANCE)
    np.testing.assert_allclose([np.var(z.real), np.var(z.imag)], 0.25, rtol=2 * CHANCE)
    assert abs(correlation(z.real, z.imag)) < CHANCE


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_gets_the_rounded_noise_of_float32(dtype):
    (half,), (full,) = noise(jnp.zeros(100, dtype)), noise(jnp.zeros(100))
    assert_equal(half, full.astype(dtype))


def test_noise_is_added_to_the_gradient():
    g = jnp.linspace(-1.0, 1.0, 9)
    tx = gradtx.add_noise(1.0, 0.55, 3)
    np.testing.assert_allclose(
        tx.update(g, tx.init(g))[0] - g, noise(g, key=3)[0], rtol=0, atol=1e-6
    )
    silent = gradtx.add_noise(0.0, 0.55, 3)
    assert_equal(silent.update(g, silent.init(g))[0], g)


def test_the_learning_rate_multiplies_the_noise_too():
    g = jnp.zeros(5)
    tx = gradtx.noisy_sgd(0.1, eta=1.0, key=3)
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], -0.1 * noise(g, key=3)[0], rtol=1e-6)


def test_all_kinds_of_keys():
    x = jnp.zeros(5)
    (wanted,) = noise(x, key=jax.random.key(7))
    for key in (7, np.int64(7), jnp.uint32(7), jax.random.PRNGKey(7)):
        assert_equal(noise(x, key=key)[0], wanted)
    assert_equal(noise(x, key=None, seed=7)[0], wanted)
    assert_equal(noise(x, key=None)[0], noise(x, key=0)[0])
    assert not np.any(noise(x, key=8)[0] == wanted)


def test_keys_that_cannot_be_meant():
    with pytest.raises(ValueError, match="add_noise: give key or seed, got both: 1 and 2"):
        gradtx.add_noise(1.0, 0.5, 1, seed=2)
    with pytest.raises(
        ValueError, match=r"add_noise: key must be one key or seed, got shape \(3,\)"
    ):
        gradtx.add_noise(1.0, 0.5, jax.random.split(jax.random.key(0), 3))
    with pytest.raises(
        ValueError, match=r"add_noise: key must be one key or seed, got shape \(3,\)"
    ):
        gradtx.add_noise(1.0, 0.5, jax.random.split(jax.random.PRNGKey(0), 3))
    with pytest.raises(
        ValueError, match=r"noisy_sgd: eta must be finite and not negative, got -0\.1"
    ):
        gradtx.noisy_sgd(0.1, eta=-0.1)


def test_the_state_holds_the_next_key():
    tx, x = gradtx.add_noise(1.0, 0.5, 7), jnp.zeros(3)
    state = tx.init(x)
    assert jnp.issubdtype(state.rng_key.dtype, jax.dtypes.prng_key)
    first, state = tx.update(x, state)
    assert int(state.count) == 1
    again, _ = tx.update(x, state._replace(rng_key=tx.init(x).rng_key, count=jnp.int32(0)))
    assert_equal(again, first)


def test_masked_and_missing_leaves_get_none():
    tree = {"a": jnp.zeros(3), "b": jnp.zeros(3), "c": None}
    tx = gradtx.masked(gradtx.add_noise(1.0, 0.5, 7), {"a": True, "b": False, "c": True})
    updates, _ = tx.update(tree, tx.init(tree))
    assert np.all(updates["a"] != 0) and np.all(updates["b"] == 0) and updates["c"] is None


def test_jitted_scanned_and_vmapped_noise_is_the_same():
    x = jnp.zeros((2, 3))
    tx = gradtx.add_noise(0.5, 0.55, 7)
    wanted = jnp.stack(noise(x, steps=3, eta=0.5, key=7))

    @jax.jit
    def scanned(state):
        def step(state, _):
            updates, state = tx.update(x, state)
            return state, updates

        return jax.lax.scan(step, state, length=3)[1]

    assert_ulps(scanned(tx.init(x)), wanted, 2)

    def with_eta(eta):
        noisy = gradtx.add_noise(eta, 0.55, 7)
        return noisy.update(x, noisy.init(x))[0]

    etas = jnp.asarray([0.0, 0.5, 2.0])
    found = jax.vmap(with_eta)(etas)
    assert_ulps(found[1], wanted[0], 4)
    np.testing.assert_allclose(found[2], 2 * found[1], rtol=1e-6)
    assert np.all(found[0] == 0)


def test_made_inside_of_jit():
    """A key that is traced, or made while tracing, stays inside."""
    x = jnp.zeros(3)

    @jax.jit
    def inside(key):
        tx = gradtx.add_noise(1.0, 0.55, key)
        other = gradtx.add_noise(1.0, 0.55, 7)
        return tx.update(x, tx.init(x))[0], other.update(x, other.init(x))[0]

    with checking_leaks():
        traced, made = inside(jax.random.key(7))
    assert_equal(traced, made)
    assert_ulps(traced, noise(x, key=7)[0], 2)
