"""RAdam's count of what its second moment holds, and what it does with it."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_conformance import walk

import gradtx
from gradtx.schedules.rectified import effective_length

DECAYS = (0.25, 0.5, 0.75, 0.9375, 1 - 2.0**-10, 1 - 2.0**-14)  # binary fractions
STEPS = (1, 2, 3, 5, 6, 10, 40, 300, 2000)


def exact_length(decay, steps):
    """Twice the mean age of the values in the average, less one, in rational numbers.

    `sum(k * b**k) = b * (1 - (t+1) * b**t + t * b**(t+1)) / (1-b)**2`, over `k` from 1 to `t`.
    """
    b, t = Fraction(decay), steps
    ages = (1 - (t + 1) * b**t + t * b ** (t + 1)) / (1 - b) ** 2
    return float(2 * ages / ((1 - b**t) / (1 - b)) - 1)


def test_the_exact_length_is_the_mean_age():
    b, t = Fraction(3, 4), 5
    ages = sum(k * b ** (k - 1) for k in range(1, t + 1)) / sum(b**k for k in range(t))
    assert exact_length(0.75, 5) == float(2 * ages - 1)
    papers = 2 / (1 - b) - 1 - 2 * t * b**t / (1 - b**t)
    assert exact_length(0.75, 5) == float(papers)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_every_digit_of_the_length_is_good(decay, wide):
    with jax.enable_x64(wide):
        found = np.asarray([effective_length(decay, jnp.int32(t)) for t in STEPS])
        held = np.asarray([effective_length(jnp.asarray(decay), jnp.int32(t)) for t in STEPS])
    wanted = [exact_length(decay, t) for t in STEPS]
    np.testing.assert_allclose(found, wanted, rtol=4 * np.finfo(found.dtype).eps)
    np.testing.assert_allclose(held, wanted, rtol=4 * np.finfo(found.dtype).eps)


def test_the_length_for_all_decays_at_once():
    decays = jnp.asarray([0.0, 0.5, 0.999])
    found = jax.vmap(lambda b: effective_length(b, 6))(decays)
    np.testing.assert_allclose(
        found, [1.0, exact_length(0.5, 6), exact_length(0.999, 6)], rtol=1e-6
    )


@pytest.mark.parametrize("t", [1, 6, 1000, 10**6])
def test_its_slope_is_finite_at_every_decay(t):
    decays = jnp.asarray([0.0, 1e-30, 0.5, 0.999, 1 - 2.0**-24])
    slopes = jax.vmap(jax.grad(lambda b: effective_length(b, t)))(decays)
    assert bool(jnp.all(jnp.isfinite(slopes)))


@pytest.mark.parametrize(("b2", "first"), [(0.999, 6), (0.9, 6), (0.8, 7), (0.6, None), (0, None)])
def test_the_first_step_that_divides(b2, first):
    """With a momentum of 0 and gradients of 4, those before it are 4 long."""
    tx = gradtx.scale_by_radam(b1=0.0, b2=b2)
    state, g = tx.init(jnp.zeros(())), jnp.float32(4)
    lengths = []
    for _ in range(30):
        u, state = tx.update(g, state)
        lengths.append(float(u))
    before = 30 if first is None else first - 1
    assert lengths[:before] == [4.0] * before
    assert all(0 < u < 1 for u in lengths[before:])


def test_thresholds_below_4_mean_4_where_optax_gives_nan(x64):
    gradients = [jnp.asarray([x, -2.0]) for x in (2.0, 4.0, -2.0, 1.0, -1.0, 0.5)]
    low = walk(gradtx.radam(0.1, threshold=2.0), gradients[0], gradients)
    papers = walk(gradtx.radam(0.1, threshold=4.0), gradients[0], gradients)
    np.testing.assert_array_equal(low[0], papers[0])
    tx = optax.radam(0.1, threshold=2.0)
    state, seen = tx.init(gradients[0]), []
    for g in gradients:
        u, state = tx.update(g, state)
        seen.append(u)
    assert bool(jnp.any(jnp.isnan(jnp.stack(seen))))


@pytest.mark.parametrize("b2", [1, 1.0, -0.1])
def test_refuses_decays_that_are_none(b2):
    with pytest.raises(ValueError, match=rf"radam: b2 must be in \[0, 1\), got {b2}"):
        gradtx.radam(0.1, b2=b2)
