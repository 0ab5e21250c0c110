"""Training of half-precision parameters: where many small steps arrive."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

STEPS, RATE, WIDTH = 10_000, 1e-4, 256
SGD = gradtx.sgd(RATE)


def ways(tx):
    return {
        "master_weights": gradtx.master_weights(tx),
        "kahan": gradtx.kahan(tx),
        "kahan int8": gradtx.kahan(tx, "int8"),
        "stochastic_round": gradtx.chain(tx, gradtx.stochastic_round()),
    }


WAYS = ways(SGD)


def dtypes_of(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@functools.cache
def arrival(name, dtype):
    """The parameters and the state after 10,000 steps of 1e-4 from 1."""
    tx, w = WAYS[name], jnp.ones(WIDTH, dtype)
    g = -jnp.ones(WIDTH, dtype)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(g, state, w)
        return (gradtx.apply_updates(w, updates), state), None

    def run(carry):
        return jax.lax.scan(step, carry, length=STEPS)[0]

    w, state = jax.jit(run)((w, tx.init(w)))
    return np.asarray(w, np.float64), state


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_many_small_steps_arrive(dtype):
    """At 2, where steps without help stay at 1; the error of float32's sum is 2e-4."""
    spacing = 2 * float(jnp.finfo(dtype).eps)  # above 2
    for name in ("master_weights", "kahan", "kahan int8"):
        found, state = arrival(name, dtype)
        np.testing.assert_allclose(found, 2, rtol=0, atol=spacing / 2)
    assert abs(arrival("master_weights", dtype)[1].master - 2).max() < 2e-4
    # The residuals are rounded stochastically, to a 256th of the spacing or better.
    for name in ("kahan", "kahan int8"):
        w, state = arrival(name, dtype)
        residual = np.asarray(state.residual, np.float64)
        if name == "kahan int8":
            residual = residual * spacing / 254
        assert abs(w + residual - 2).max() < 0.5 * spacing
        assert abs((w + residual).mean() - 2) < 0.02 * spacing
    # Each step of a random walk is a spacing, in one of 78 or 10 steps.
    found, _ = arrival("stochastic_round", dtype)
    deviation = (spacing / 2) ** 0.5
    assert abs(found - 2).max() < 4 * deviation
    assert abs(found.mean() - 2) < 4 * deviation / WIDTH**0.5


def test_float32_is_left_or_compensated():
    w = jnp.ones(WIDTH)
    plain = SGD.update(w, SGD.init(w))[0]
    for name in ("stochastic_round", "master_weights"):
        tx = WAYS[name]
        np.testing.assert_allclose(tx.update(w, tx.init(w), w)[0], plain, rtol=2e-4)
    assert abs(arrival("kahan", "float32")[0] - 2).max() < 3e-7

    # Gradients, and so updates, in half precision: what one update loses is in the next.
    tx, half = gradtx.master_weights(gradtx.sgd(1.0)), jnp.full(WIDTH, 0.1, jnp.bfloat16)
    state = tx.init(w)
    for _ in range(10):
        updates, state = tx.update(half, state, w)
        assert updates.dtype == jnp.bfloat16
        w = gradtx.apply_updates(w, updates)
    np.testing.assert_allclose(w, state.master, atol=2**-9 * 0.11)


def test_gradients_pass():
    """To the learning rate: those of exact steps, up to the rounding of bfloat16."""

    def mean_after(rate, name):
        w = jnp.ones(8, jnp.bfloat16)
        updates, _ = WAYS[name].update(w, WAYS[name].init(w), w, learning_rate=rate)
        return gradtx.apply_updates(w, updates).astype(jnp.float32).mean()

    for name in WAYS:
        np.testing.assert_allclose(jax.grad(mean_after)(0.1, name), -1, rtol=2**-7)


def test_any_seed():
    w = jnp.ones(WIDTH, jnp.bfloat16)
    found = []
    for seed in (-1, 7, 2**40 + 5):
        tx = gradtx.chain(gradtx.sgd(1e-3), gradtx.stochastic_round(seed))
        found.append(np.asarray(tx.update(w, tx.init(w), w)[0], float))
    assert not any(np.array_equal(x, y) for x, y in itertools.combinations(found, 2))


@pytest.mark.parametrize("name", WAYS)
def test_one_step(name):
    """A large step on leaves of several dtypes and `None`; the state keeps its form."""
    tx = WAYS[name]
    params = {
        "a": jnp.array([1.0, -300.0, 0.0], jnp.bfloat16),
        "b": (jnp.array(2.0, jnp.float16), None, jnp.ones((2, 2))),
    }
    grads = jax.tree.map(lambda p: (1e6 * jnp.ones_like(p)).clip(-6e4, 6e4), params)
    state = tx.init(params)
    updates, new = jax.jit(tx.update)(grads, state, params)
    assert dtypes_of(new) == dtypes_of(state) and dtypes_of(updates) == dtypes_of(grads)
    moved = gradtx.apply_updates(params, updates)
    exact = jax.tree.map(lambda p, g: p.astype(float) - RATE * g.astype(float), params, grads)
    for found, p, wanted in zip(*map(jax.tree.leaves, (moved, params, exact)), strict=True):
        np.testing.assert_allclose(
            found.astype(float), wanted, rtol=float(jnp.finfo(p.dtype).eps), atol=1e-6
        )
    again = jax.jit(tx.update)(grads, new, moved)[1]
    assert dtypes_of(again) == dtypes_of(state)


def test_the_inner_transformation_sees_float32():
    seen = []

    def update(updates, state, params=None, **extra):
        seen.append((updates.dtype, params.dtype))
        return updates, state

    inner = gradtx.GradientTransformation(lambda params: (), update)
    w = jnp.ones(2, jnp.bfloat16)
    for wrap in (gradtx.master_weights, gradtx.kahan):
        wrap(inner).update(w, wrap(inner).init(w), w)
    assert seen == [(jnp.float32, jnp.float32)] * 2


def test_mistakes():
    w = jnp.ones(2, jnp.bfloat16)
    for name, tx in WAYS.items():
        with pytest.raises(ValueError, match=f"^{name.split()[0]}.*params"):
            tx.update(w, tx.init(w))
    with pytest.raises(ValueError, match=r"residual must be one of 'float', 'int8', got 'int4'"):
        gradtx.kahan(SGD, "int4")
    with pytest.raises(TypeError, match="complex64, but must be real"):
        gradtx.kahan(SGD).init(jnp.ones(2, jnp.complex64))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("residual", ["float", "int8"])
def test_the_residual_is_what_the_rounded_parameters_lack(residual, dtype):
    """Also in compiled code, where XLA omits conversions to half precision and back."""
    random, shape = np.random.default_rng(0), (64, 64)
    w, *grads = (jnp.asarray(random.normal(size=shape), dtype) for _ in range(3))
    tx = gradtx.kahan(gradtx.sgd(0.1), residual)

    @jax.jit
    def both(w):
        state = tx.init(w)
        for g in grads:
            updates, state = tx.update(g, state, w)
            w = gradtx.apply_updates(w, updates)
        return w, state

    exact, state = np.asarray(w, np.float64), tx.init(w)
    together = both(w)
    for g in grads:
        updates, state = jax.jit(tx.update)(g, state, w)
        w = gradtx.apply_updates(w, updates)
        exact = exact - np.float32(0.1) * np.asarray(g, np.float64)
    for moved, after in ((w, state), together):
        w = np.asarray(moved, np.float64)
        lacks = np.asarray(after.residual, np.float64)
        spacing = np.exp2(np.frexp(w)[1]) * float(jnp.finfo(dtype).eps) / 2
        lacks = lacks * spacing / 254 if residual == "int8" else lacks
        error = np.abs(w + lacks - exact)
        # Each of two steps rounds the residual by less than a unit. A byte does not hold what the
        # rounding of a larger update leaves of a small parameter.
        assert error.max() <= 0.1 * float(jnp.finfo(dtype).eps) * (4 if residual == "int8" else 1)
        assert np.mean(error > 2 * spacing / 254 + 1e-6) < (0.06 if residual == "int8" else 1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", WAYS)
def test_at_the_ends_of_the_range(name, dtype):
    """Zero, the smallest normal number and the largest ones: they stay finite, and move on."""
    info = jnp.finfo(dtype)
    most, least = float(info.max), float(info.smallest_normal)
    ends = [0.0, least, 2.0**-110, 1.0, most / 2, most]
    w = jnp.tile(jnp.asarray([*ends, *(-x for x in ends)], dtype), (32, 1))
    start = w.astype(jnp.float32)
    tx = ways(gradtx.sgd(1.0))[name]
    state, step = tx.init(w), jax.jit(tx.update)
    # outwards; at the ends in all by less than half the distance of two numbers
    g = jnp.where(start < 0, 2.0**-10, -(2.0**-10))
    g = jnp.where(abs(start) < 2, g, -start * info.eps / 32).astype(dtype)
    for count in range(1, 5):
        updates, state = step(g, state, w)
        w = gradtx.apply_updates(w, updates)
        assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((w, state)))
        exact = start - count * g.astype(jnp.float32)
        close = count * float(info.eps) * np.maximum(abs(exact), least)
        assert (abs(w.astype(jnp.float32) - exact) <= close).all()
