"""Kullback-Leibler divergences against float64 NumPy statements, optax as a second opinion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_program import one_program

import gradtx
from gradtx.losses import (
    convex_kl_divergence,
    generalized_kl_divergence,
    kl_divergence,
    kl_divergence_with_log_targets,
)

# In one program each; without `jit` they are called in test_losses.py.
kl_divergence, generalized_kl_divergence, kl_divergence_with_log_targets = map(
    one_program, (kl_divergence, generalized_kl_divergence, kl_divergence_with_log_targets)
)


def distributions(shape=(6, 5)):
    rng = np.random.default_rng(0)
    q, p = (rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]) for _ in range(2))
    p[..., 1] = 0
    return np.log(q).astype(np.float32), p.astype(np.float32)


def terms(log_q, p, generalized=False):
    log_q, p = np.asarray(log_q, np.float64), np.asarray(p, np.float64)
    plain = np.where(p == 0, 0, p * (np.log(np.where(p == 0, 1, p)) - log_q))
    return plain + (np.exp(log_q) - p) * generalized


@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None])
def test_follow_the_equation(axis):
    log_q, p = distributions((3, 4, 5))
    np.testing.assert_allclose(
        kl_divergence(log_q, p, axis), terms(log_q, p).sum(axis), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        generalized_kl_divergence(log_q, p, axis),
        terms(log_q, p, True).sum(axis),
        rtol=1e-5,
        atol=1e-6,
    )
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    np.testing.assert_allclose(
        kl_divergence_with_log_targets(log_q, log_p, axis),
        terms(log_q, p).sum(axis),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        kl_divergence(log_q, p, axis),
        optax.losses.kl_divergence(log_q, p, axis),
        rtol=1e-5,
        atol=1e-6,
    )


def test_no_class_costs_what_it_is_not():
    """Probability 0 predicted at -inf; what is so but predicted at -inf costs everything."""
    log_q, p = jnp.array([0.0, -jnp.inf]), jnp.array([1.0, 0.0])
    for loss, target in (
        (kl_divergence, p),
        (generalized_kl_divergence, p),
        (kl_divergence_with_log_targets, jnp.log(p)),
    ):
        assert loss(log_q, target) == 0
        for i in (0, 1):
            assert np.isfinite(jax.grad(loss, i)(log_q, target)).all()
        assert loss(log_q, target[::-1]) == jnp.inf


def test_gradients():
    log_q, p = distributions()
    slope = jax.grad(lambda x: kl_divergence(x, p).sum())(log_q)
    np.testing.assert_allclose(slope, -p, rtol=1e-6)
    slope = jax.grad(lambda x: generalized_kl_divergence(x, p).sum())(log_q)
    np.testing.assert_allclose(slope, np.exp(log_q) - p, atol=1e-6)
    there = p > 0
    slope = jax.grad(lambda x: kl_divergence(log_q, x).sum())(p)
    want = np.log(np.where(there, p, 1)) + 1 - log_q
    np.testing.assert_allclose(np.where(there, slope, want), want, rtol=1e-5)


def test_the_generalized_divergence_is_never_negative():
    rng = np.random.default_rng(1)
    log_q, p = rng.normal(size=(50, 4)), rng.exponential(size=(50, 4))
    assert (generalized_kl_divergence(log_q.astype(np.float32), p.astype(np.float32)) > 0).all()
    np.testing.assert_allclose(generalized_kl_divergence(np.log(p), p), 0, atol=1e-5)


@pytest.mark.parametrize(
    "loss", [kl_divergence, generalized_kl_divergence, kl_divergence_with_log_targets]
)
@pytest.mark.parametrize("left_out", [0.0, np.inf, -np.inf, np.nan])
def test_what_is_left_out_has_no_say(loss, left_out):
    log_q, p = distributions()
    p = p + 0.1
    kept = np.array([True, True, False, True, True])  # for every row
    want = loss(log_q[:, kept], p[:, kept])
    log_q[:, 2], p[:, 2] = left_out, left_out
    np.testing.assert_allclose(loss(log_q, p, where=kept), want, rtol=1e-6, atol=1e-7)
    for i in (0, 1):
        slope = jax.grad(lambda *a: loss(*a, where=kept).sum(), i)(log_q, p)
        assert np.isfinite(slope).all() and (slope[:, 2] == 0).all()
    nothing = loss(log_q, p, where=np.zeros((6, 1), bool))
    np.testing.assert_array_equal(nothing, np.zeros(6))


def test_the_former_name_warns():
    log_q, p = distributions()
    with pytest.warns(DeprecationWarning, match="use generalized_kl_divergence"):
        loss = convex_kl_divergence(log_q, p)
    want = gradtx.losses.generalized_kl_divergence(log_q, p)  # without jit too: to the bit
    np.testing.assert_array_equal(loss, want)


def test_errors():
    log_q, p = distributions()
    with pytest.raises(
        ValueError, match=r"log_predictions of shape \(6, 5\) and targets of .*\(6,\)"
    ):
        kl_divergence(log_q, p[:, 0])
    with pytest.raises(ValueError, match=r"where of shape \(6,\) do not broadcast"):
        kl_divergence(log_q, p, where=np.ones(6, bool))
    with pytest.raises(
        ValueError, match=r"where of shape \(2, 1, 1\) does not broadcast to \(6, 5\)"
    ):
        kl_divergence(log_q, p, where=np.ones((2, 1, 1), bool))
    with pytest.raises(ValueError, match=r"has 2 axes, so axis must be from -2 to 1, got 2"):
        kl_divergence(log_q, p, axis=2)
    with pytest.raises(TypeError, match="kl_divergence: targets must be floating-point"):
        kl_divergence(log_q, p.astype(int))
